"""Each planted bug is caught by the conformance suite, on every backend that can have it."""

from __future__ import annotations

import asyncio

import pytest

from tests.backends import BACKENDS, Backend
from tests.planted.limits import LIMIT_BUGS
from tests.planted.places import PLACE_BUGS
from tests.planted.planting import FAMILIES, Bug, planted
from tests.planted.rules import RULE_BUGS
from workqueue.conformance import Target, all_scenarios, run_scenario

BUGS = [*RULE_BUGS, *PLACE_BUGS, *LIMIT_BUGS]
SCENARIOS = {scenario.name: scenario for scenario in all_scenarios()}
PATIENCE_SECONDS = 4.0
OBJECTIONS = ("AssertionError", "TimeoutError")

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
