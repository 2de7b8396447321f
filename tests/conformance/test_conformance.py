"""Every scenario on every backend."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.backends import Backend
from workqueue.conformance import Scenario, Target, all_scenarios, run_scenario


@pytest.mark.parametrize("scenario", all_scenarios(), ids=lambda scenario: scenario.name.replace(" ", "_"))
def test_conformance(scenario: Scenario, target: Target, backend: Backend) -> None:
    result = asyncio.run(run_scenario(target, scenario))

    assert result.status != "failed", result.error
    assert (result.status == "not-applicable") == bool(scenario.needs & backend.lacks), result.error
