"""Each planted bug is caught: by the suite on every backend that can have it, or by the dispatcher's tests."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import grpc
import pytest
from aiohttp import ClientError

from tests.planted.dispatching import DISPATCH_BUGS, DispatchBug
from tests.planted.limits import LIMIT_BUGS
from tests.planted.pages import PAGE_BUGS
from tests.planted.places import PLACE_BUGS
from tests.planted.planting import Bug, planted
from tests.planted.rules import RULE_BUGS
from tests.planted.serving import SERVER_BUGS
from tests.planted.table import PAGE, page
from tests.planted.vocabulary import VOCABULARY_BUGS
from tests.support.backends import BACKENDS, Backend
from tests.support.dispatching import bounded
from workqueue.conformance import Target, all_scenarios, run_scenario
from workqueue.conformance.scenarios import waiting
from workqueue.errors import WorkQueueError

BUGS = [*RULE_BUGS, *PLACE_BUGS, *PAGE_BUGS, *LIMIT_BUGS]
SCENARIOS = {scenario.name: scenario for scenario in all_scenarios()}
WAKING_SECONDS = 2.0
"""How long a scenario waits for a wake-up that a bug keeps from coming; without the bug it must come in that time."""

# A test of a server may also fail by what its client is answered.
OBJECTIONS = (AssertionError, pytest.fail.Exception, WorkQueueError, grpc.aio.AioRpcError, ClientError)

PAIRS = [
    pytest.param(backend, bug, id=f"{backend.name}-{bug.name.replace(' ', '_')}")
    for backend in BACKENDS
    for bug in BUGS
    if bug.edits_for(backend) and not SCENARIOS[bug.caught_by].needs & backend.lacks
]


@pytest.fixture(scope="module")
def targets() -> Iterator[Callable[[Backend], Target]]:
    """Each backend's target, opened once: a fixture that is parametrized with the bugs would be set up for each."""
    with ExitStack() as opened:
        yield functools.cache(lambda backend: opened.enter_context(backend.opened()))


@pytest.mark.parametrize(("backend", "bug"), PAIRS)
def test_a_planted_bug_is_caught(
    backend: Backend, bug: Bug, targets: Callable[[Backend], Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, scenario = targets(backend), SCENARIOS[bug.caught_by]
    if scenario.subject == "waiting":
        monkeypatch.setattr(waiting, "_REAL_SECONDS", WAKING_SECONDS)
        assert asyncio.run(run_scenario(target, scenario)).status == "passed", "it objects without the bug"

    with planted(bug.edits_for(backend)):
        result = asyncio.run(run_scenario(target, scenario))

    assert result.status == "failed"
    assert result.error.startswith("AssertionError"), f"the scenario must object, nobody else: {result.error}"


BUGS_OF_TESTS = [*DISPATCH_BUGS, *VOCABULARY_BUGS, *SERVER_BUGS]


@pytest.mark.parametrize("bug", BUGS_OF_TESTS, ids=lambda bug: bug.name.replace(" ", "_"))
def test_a_bug_that_a_test_of_its_room_looks_for_is_caught(bug: DispatchBug, request: pytest.FixtureRequest) -> None:
    module, _, name = bug.caught_by.partition(":")
    test = getattr(importlib.import_module(module), name)
    others = [*inspect.signature(test).parameters][len(bug.arguments) :]
    named = {name: bug.named[name] if name in bug.named else request.getfixturevalue(name) for name in others}

    run = bounded(test) if inspect.iscoroutinefunction(test) else test
    with planted(bug.edits), pytest.raises(OBJECTIONS):
        run(*bug.arguments, **named)


def test_the_page_of_planted_bugs_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m tests.planted.table"
