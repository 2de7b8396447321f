"""The synchronous face and the asynchronous one have the same verbs, and each takes and gives the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from workqueue import interface, optional, paging, sync

# What synchronous code has no use for: leases, which a dispatcher keeps, and waiting for keys to start.
DISPATCHERS = {"lease", "wait", "start", "exact"}
PAIRS: list[tuple[type, tuple[type, ...]]] = [
    (
        sync.Queue,
        (
            interface.WorkQueue,
            optional.BulkQueue,
            optional.CountingQueue,
            optional.SearchableQueue,
            optional.PagedQueue,
            optional.ConfigurableQueue,
            optional.LeasingQueue,
            optional.WaitingQueue,
        ),
    ),
    (sync.QueuedKey, (interface.QueuedKey,)),
    (sync.ObservedInProgressKey, (interface.ObservedInProgressKey,)),
    (sync.DeadLetteredKey, (interface.DeadLetteredKey,)),
    (sync.UnreadableKey, (interface.UnreadableKey,)),
    (sync.Snapshot, (interface.Snapshot,)),
    (sync.Found, (optional.Found,)),
    (sync.Page, (paging.Page,)),
]


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def verbs(kinds: tuple[type, ...]) -> dict[str, Callable[..., Any]]:
    found = {name: value for kind in kinds for name, value in public(kind).items()}
    return {name: value for name, value in found.items() if inspect.isfunction(value) and name not in DISPATCHERS}


def shown(kind: type) -> set[str]:
    """What can be read of a handle: its properties and fields."""
    properties = {name for name, value in public(kind).items() if isinstance(value, property)}
    fields = {name for name in getattr(kind, "__dataclass_fields__", {}) if not name.startswith("_")}
    return (properties | fields) - DISPATCHERS


def asked(verb: Callable[..., Any]) -> list[tuple[str, object, object, str]]:
    """The parameters of a verb, but the time limit that a synchronous one has besides."""
    parameters = inspect.signature(verb).parameters.values()
    return [(p.name, p.kind, p.default, p.annotation) for p in parameters if p.name != "timeout"]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda each: getattr(each, "__name__", ""))
def test_both_faces_have_the_same_verbs_with_the_same_parameters(ours: type, theirs: tuple[type, ...]) -> None:
    own = {name: value for name, value in verbs((ours,)).items() if name not in ("close", "of")}

    assert {name: asked(verb) for name, verb in own.items()} == {
        name: asked(verb) for name, verb in verbs(theirs).items()
    }


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda each: getattr(each, "__name__", ""))
def test_both_faces_return_what_has_the_same_name(ours: type, theirs: tuple[type, ...]) -> None:
    for name, verb in verbs(theirs).items():
        given = inspect.signature(getattr(ours, name)).return_annotation.replace("optional.", "")

        assert given == inspect.signature(verb).return_annotation


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda each: getattr(each, "__name__", ""))
def test_both_faces_show_the_same(ours: type, theirs: tuple[type, ...]) -> None:
    assert shown(ours) == set().union(*(shown(kind) for kind in theirs))
