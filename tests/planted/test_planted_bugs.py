"""Each planted bug is caught: by the suite on every backend that can have it, or by the dispatcher's tests."""

from __future__ import annotations

import asyncio
import importlib
import inspect

import pytest

from tests.planted.dispatching import DISPATCH_BUGS, DispatchBug
from tests.planted.limits import LIMIT_BUGS
from tests.planted.places import PLACE_BUGS
from tests.planted.planting import Bug, planted
from tests.planted.rules import RULE_BUGS
from tests.planted.table import PAGE, page
from tests.support.backends import BACKENDS, Backend
from tests.support.dispatching import bounded
from workqueue.conformance import Target, all_scenarios, run_scenario

BUGS = [*RULE_BUGS, *PLACE_BUGS, *LIMIT_BUGS]
SCENARIOS = {scenario.name: scenario for scenario in all_scenarios()}
PATIENCE_SECONDS = 4.0
OBJECTIONS = ("AssertionError", "TimeoutError")
OBJECTIONS_OF_TESTS = (AssertionError, TimeoutError, pytest.fail.Exception)

PAIRS = [
    pytest.param(backend, bug, id=f"{backend.name}-{bug.name.replace(' ', '_')}")
    for backend in BACKENDS
    for bug in BUGS
    if bug.edits_for(backend) and not SCENARIOS[bug.caught_by].needs & backend.lacks
]


@pytest.mark.parametrize(("backend", "bug"), PAIRS, indirect=["backend"])
def test_a_planted_bug_is_caught(backend: Backend, bug: Bug, target: Target) -> None:
    with planted(bug.edits_for(backend)):
        result = asyncio.run(run_scenario(target, SCENARIOS[bug.caught_by], PATIENCE_SECONDS))

    assert result.status == "failed"
    assert result.error.startswith(OBJECTIONS), f"the scenario must object, not Python or the store: {result.error}"


@pytest.mark.parametrize("bug", DISPATCH_BUGS, ids=lambda bug: bug.name.replace(" ", "_"))
def test_a_bug_planted_in_the_dispatcher_is_caught(bug: DispatchBug) -> None:
    module, _, name = bug.caught_by.partition(":")
    test = getattr(importlib.import_module(module), name)

    run = bounded(test) if inspect.iscoroutinefunction(test) else test
    with planted(bug.edits), pytest.raises(OBJECTIONS_OF_TESTS):
        run()


def test_the_page_of_planted_bugs_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m tests.planted.table"
