"""What users test their reconcilers with."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from dispatcher.testing import CollectedEvents, run_until_idle
from tests.support.processes import python
from workqueue import Options, RequeueAfter, open_queue
from workqueue.attempt import Attempt, call
from workqueue.testing import FakeClock, assert_dead_lettered, assert_gone, assert_queued, attempt

WITH_PLUGIN = """
import asyncio
from datetime import UTC, datetime, timedelta
from workqueue import Options
from workqueue.testing import assert_queued

pytest_plugins = ["workqueue.testing.pytest_plugin"]

def test_both_fixtures_are_one_world(queue, clock):
    async def test():
        async with queue:
            await queue.queue("a", Options(not_before=datetime.fromtimestamp(clock.wall_us() / 1e6 + 60, UTC)))
            assert (await queue.counts()).queued == 0
            clock.advance(timedelta(minutes=1))
            assert (await queue.counts()).queued == 1
            await assert_queued(queue, "a")
    asyncio.run(test())
"""


async def fail(key: str, attempt: Attempt) -> None:
    raise ValueError("no")


async def test_an_attempt_made_by_hand_is_what_a_callback_gets() -> None:
    seen: list[Attempt] = []
    made = attempt("a", Options(priority=3, meta={"who": "me"}), attempts=2, payload=b"p")

    await call(lambda key, given: seen.append(given), "a", made)
    seen[0].extend(timedelta(hours=2))

    assert (seen[0].priority, seen[0].attempts, seen[0].payload, seen[0].meta) == (3, 2, b"p", {"who": "me"})
    assert (seen[0].remaining(), made.extended) == (timedelta(hours=2), [timedelta(hours=2)])


async def test_run_until_idle_moves_the_clock_over_every_delay() -> None:
    clock, events = FakeClock(), CollectedEvents()
    async with open_queue("memory://", clock=clock) as queue:
        await queue.queue("a")

        rounds = await run_until_idle(queue, fail, clock=clock, errors=events, max_retry=3)

        await assert_dead_lettered(queue, "a", attempts=3, error="ValueError: no")
        assert (rounds, events.actions) == (3, [("a", "requeued")] * 2 + [("a", "dead-lettered")])


async def test_without_a_clock_keys_that_wait_are_left_to_wait() -> None:
    async with open_queue("memory://", clock=FakeClock()) as queue:
        await queue.queue("a")

        assert await run_until_idle(queue, fail) == 1
        await assert_queued(queue, "a", attempts=1)


async def test_a_key_that_asks_for_itself_for_ever_is_found_out() -> None:
    clock = FakeClock()
    async with open_queue("memory://", clock=clock) as queue:
        await queue.queue("a")

        with pytest.raises(AssertionError, match="still work after 100 rounds:\n  delayed: 'a'"):
            await run_until_idle(queue, lambda key, attempt: RequeueAfter(timedelta(seconds=1)), clock=clock)


async def test_an_assertion_that_fails_shows_the_queue() -> None:
    async with open_queue("memory://") as queue:
        await queue.queue("a", Options(priority=3))

        for wrong in (
            assert_gone(queue, "a"),
            assert_dead_lettered(queue, "a"),
            assert_queued(queue, "b"),
            assert_queued(queue, "a", priority=4),
        ):
            with pytest.raises(AssertionError, match="\n  queued: 'a' attempts=0"):
                await wrong
        assert (await assert_queued(queue, "a", priority=3)).key == "a"


def test_the_plugin_gives_a_queue_on_a_clock(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(WITH_PLUGIN, encoding="utf-8")

    ended = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py", cwd=tmp_path)

    assert "1 passed" in ended.out, ended.out
