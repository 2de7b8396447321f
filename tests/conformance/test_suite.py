"""The suite itself: that it says what is wrong, where and why, and leaves nothing behind."""

from __future__ import annotations

import ast
import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from examples import three_verbs
from tests.support.backends import Tables
from workqueue.backends import open_queue
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.conformance import (
    Case,
    Need,
    Result,
    Scenario,
    URLTarget,
    all_scenarios,
    report,
    run,
    run_all,
    run_scenario,
)
from workqueue.conformance.case import expect
from workqueue.conformance.scenarios import waiting
from workqueue.errors import InvalidSettingError
from workqueue.interface import WorkQueue
from workqueue.testing import FakeClock

ROOT = Path(__file__).parents[2]
SCENARIOS = {scenario.name: scenario for scenario in all_scenarios()}


def checked(scenario: Scenario, target: Any = None, patience: float = 30) -> Result:
    return asyncio.run(run_scenario(target or URLTarget("memory://"), scenario, patience))


def scenario_of(check: Any, *needs: Need) -> Scenario:
    return Scenario("subject", "sentence", frozenset(needs), check)


class Forgetful(MemoryQueue):
    """Forgets every other key."""

    async def queue(self, key: str, *args: Any) -> None:
        if len(key) % 2:
            await super().queue(key, *args)


class Deaf(MemoryQueue):
    """Looks at the queue only some time after it was asked to wait, and is then woken by nothing."""

    async def wait(self, timeout: timedelta, concurrency: int) -> None:
        await asyncio.sleep(0.03)
        if (await self.counts()).queued == 0:
            await self.clock.sleep(timeout.total_seconds())


class DeafTarget(URLTarget):
    def open(self, name: str, *, clock: FakeClock | None, owner: str) -> WorkQueue:
        queue = super().open(name, clock=clock, owner=owner)
        queue.__class__ = Deaf  # so that its peers share its keys, as the target sees to
        return queue


class RealTime(URLTarget):
    """Memory queues that go by the machine's clocks, as a backend may that cannot be given one."""

    fake_clock = False


@pytest.mark.parametrize("what", ["an enqueue", "an enqueue by another process", "a requeue", "a redrive"])
def test_a_queue_that_wakes_nobody_fails_however_slowly_it_looks(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_REAL_SECONDS", 0.2)  # it is never woken: no need to be patient

    assert checked(SCENARIOS[f"waiting: {what} wakes whoever waits"], DeafTarget("memory://")).status == "failed"


def test_every_scenario_has_a_name_of_its_own() -> None:
    names = [scenario.name for scenario in all_scenarios()]

    assert len(names) == len(set(names))
    assert len(names) > 60


def test_no_scenario_is_longer_than_a_screen() -> None:
    for path in (ROOT / "workqueue" / "conformance" / "scenarios").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 30, node.name


def test_the_results_are_as_the_command_prints_them() -> None:
    results = run("memory://")

    document = report(results)
    assert {row["status"] for row in document["scenarios"]} == {"passed", "not-applicable"}
    assert all(row.keys() == {"name", "status", "error"} for row in document["scenarios"])
    assert all(bool(row["error"]) == (row["status"] == "not-applicable") for row in document["scenarios"])


def test_a_broken_promise_is_told_with_what_was_found_and_where() -> None:
    class Target(URLTarget):
        def open(self, name: str, *, clock: FakeClock | None, owner: str) -> WorkQueue:
            return Forgetful(clock=clock, owner=owner)

    result = checked(SCENARIOS["ordering: a higher priority starts first"], Target("memory://"))

    assert result.status == "failed"
    assert re.fullmatch(
        r"AssertionError: the listed keys: found \[.*\], expected \[.*\] \(ordering.py:\d+\)", result.error
    )


def test_a_scenario_that_needs_what_is_not_there_says_what() -> None:
    async def check(case: Case) -> None:
        raise AssertionError("must not be run")

    result = checked(scenario_of(check, Need.DURABLE))

    assert (result.status, result.error) == ("not-applicable", f"it needs {Need.DURABLE.value}")


def test_a_backend_that_raises_has_failed() -> None:
    async def check(case: Case) -> None:
        raise OSError("disk on fire")

    assert checked(scenario_of(check)).error.startswith("OSError: disk on fire")


def test_a_backend_that_hangs_has_failed() -> None:
    async def check(case: Case) -> None:
        await asyncio.Event().wait()

    result = checked(scenario_of(check), patience=0.05)

    assert (result.status, result.error.partition(":")[0]) == ("failed", "TimeoutError")


def test_a_scenario_leaves_an_empty_queue_behind() -> None:
    target, used = Tables(), []

    async def check(case: Case) -> None:
        used.append(case.name)
        await case.failed("dead")
        await case.started("running")
        await case.enqueue("running")
        await case.enqueue("delayed", not_before=case.later(3600))
        raise AssertionError

    assert checked(scenario_of(check), target).status == "failed"
    assert target.tables[used[0]].records == {}


def test_what_needs_no_time_to_pass_holds_on_a_real_clock_too() -> None:
    results = asyncio.run(run_all(RealTime("memory://")))

    assert [result for result in results if result.status == "failed"] == []
    assert sum(result.status == "passed" for result in results) > 100


def test_each_scenario_gets_a_queue_of_its_own() -> None:
    target, names = URLTarget("memory://?name=ignored&max_payload=1KiB"), set()

    async def check(case: Case) -> None:
        expect(await case.eligible(), [])
        await case.enqueue("a")
        names.add(case.name)

    assert checked(scenario_of(check), target).status == "passed"
    assert checked(scenario_of(check), target).status == "passed"
    assert len(names) == 2
    assert "ignored" not in names


@pytest.mark.parametrize("url", ["", "http://localhost", "memory://?lease=soon"])
def test_a_url_that_is_none_is_refused_before_anything_runs(url: str) -> None:
    with pytest.raises(InvalidSettingError):
        run(url)


def test_a_lease_that_the_url_sets_is_the_one_that_scenarios_wait_for() -> None:
    target = URLTarget("memory://?lease=40s")
    queue = target.open("a", clock=FakeClock(), owner="")

    assert isinstance(queue, MemoryQueue)
    assert queue.lease_times.duration == target.lease
    assert target.lease.total_seconds() == 40
    assert isinstance(open_queue("memory://?lease=40s"), MemoryQueue)


def test_the_example_backend_has_no_more_than_sixty_lines() -> None:
    source = Path(three_verbs.__file__).read_text(encoding="utf-8")
    tree = ast.walk(ast.parse(source))
    texts = [node for node in tree if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    told = {number for node in (*texts, *imports) for number in range(node.lineno, (node.end_lineno or 0) + 1)}
    lines = [line for number, line in enumerate(source.splitlines(), 1) if number not in told]

    assert len([line for line in lines if line.strip() and not line.strip().startswith("#")]) <= 60


def test_the_program_in_the_document_runs_and_finds_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "writing-a-backend.md").read_text(encoding="utf-8")
    program = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]

    exec(compile(program, "writing-a-backend.md", "exec"), {})

    assert capsys.readouterr().out.strip() == "[]"
