"""Runs scenarios and says of each whether it passed, failed or does not apply, and why."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from workqueue.conformance.case import Case, Target
from workqueue.conformance.scenario import Need, Scenario
from workqueue.conformance.suite import all_scenarios
from workqueue.conformance.target import URLTarget
from workqueue.equipment import Equipment
from workqueue.interface import WorkQueue
from workqueue.optional import (
    BulkQueue,
    CompletingQueue,
    ConfigurableQueue,
    CountingQueue,
    LeasingQueue,
    PipelinedQueue,
    SearchableQueue,
    WaitingQueue,
    offers,
)

__all__ = ["Result", "report", "run", "run_all", "run_scenario"]

PATIENCE_SECONDS = 30.0
"""Real time that a scenario may take; time that it lets pass on its FakeClock costs next to nothing."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one scenario. `error` says why it failed, or what it needs that is not there."""

    name: str
    status: Literal["passed", "failed", "not-applicable"]
    error: str = ""


def run(url: str) -> list[Result]:
    """Run every scenario against the store at `url`, in queues of their own that are emptied afterwards.

    Raises:
        InvalidSettingError: `url` is no queue URL.
    """
    return asyncio.run(run_all(URLTarget(url)))


def report(results: Iterable[Result]) -> dict[str, list[dict[str, str]]]:
    """The results as `workqueue conformance URL --json` prints them."""
    return {"scenarios": [asdict(result) for result in results]}


async def run_all(target: Target, ended: Callable[[Result], object] = lambda result: None) -> list[Result]:
    """Run every scenario, one after the other; `ended` is called as each one ends."""
    results: list[Result] = []
    for each in all_scenarios():
        results.append(await run_scenario(target, each))
        ended(results[-1])
    return results


async def run_scenario(target: Target, scenario: Scenario, patience: float = PATIENCE_SECONDS) -> Result:
    """Run one scenario on a fresh queue of `target`, for at most `patience` seconds of real time."""
    try:
        async with asyncio.timeout(patience), Case(target) as case:
            missing = [need for need in scenario.needs if not _has(case.raw, target, need)]
            if missing:
                return Result(scenario.name, "not-applicable", f"it needs {missing[0].value}")
            await scenario.check(case)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises is a finding about it
        return Result(scenario.name, "failed", _described(error))
    return Result(scenario.name, "passed")


def _has(queue: WorkQueue, target: Target, need: Need) -> bool:
    return {
        Need.CLOCK: target.fake_clock,
        Need.DURABLE: target.durable,
        Need.EXACT: offers(queue, LeasingQueue) and queue.exact,
        Need.BULK: offers(queue, BulkQueue),
        Need.COMPLETE: offers(queue, CompletingQueue),
        Need.PIPELINE: offers(queue, PipelinedQueue),
        Need.COUNTS: offers(queue, CountingQueue),
        Need.SEARCH: offers(queue, SearchableQueue),
        Need.WAIT: offers(queue, WaitingQueue),
        Need.WAKE: Equipment.of(queue).wakes,
        Need.CONFIGURE: offers(queue, ConfigurableQueue),
    }[need]


def _described(error: Exception) -> str:
    """The error in one line, with the line of the scenario that met it."""
    frames = traceback.extract_tb(error.__traceback__)
    checks = [frame for frame in frames if Path(frame.filename).parent == Path(__file__).parent / "scenarios"]
    place = f" ({Path(checks[-1].filename).name}:{checks[-1].lineno})" if checks else ""
    return f"{type(error).__name__}: {error}{place}"
