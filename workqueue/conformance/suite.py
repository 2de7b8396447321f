"""The suite: every scenario, by subject."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import ModuleType

from workqueue.conformance.scenario import Scenario
from workqueue.conformance.scenarios import (
    attempts,
    completing,
    counts,
    dead_letters,
    drops,
    durability,
    errors,
    floors,
    handles,
    keys,
    leases,
    limits,
    merge,
    not_before,
    opening,
    ordering,
    orphans,
    overlapping,
    paging,
    payloads,
    redrive,
    release,
    rerun,
    searching,
    settings,
    waiting,
)

__all__ = ["all_scenarios"]

SUBJECTS = (
    keys,
    ordering,
    merge,
    floors,
    not_before,
    payloads,
    attempts,
    rerun,
    leases,
    completing,
    handles,
    orphans,
    overlapping,
    limits,
    release,
    dead_letters,
    redrive,
    drops,
    counts,
    errors,
    searching,
    paging,
    settings,
    waiting,
    opening,
    durability,
)


def all_scenarios() -> list[Scenario]:
    """Every scenario in the order of its subject, from the simple to the involved."""
    return [scenario for subject in SUBJECTS for scenario in _of(subject)]


def _of(subject: ModuleType) -> Iterator[Scenario]:
    for value in vars(subject).values():
        yield from _flat(value)


def _flat(value: object) -> Iterable[Scenario]:
    if isinstance(value, Scenario):
        return [value]
    return [row for row in value if isinstance(row, Scenario)] if isinstance(value, tuple) else []
