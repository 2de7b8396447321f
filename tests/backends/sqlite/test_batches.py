"""What is committed together ends as if it had come one by one; what comes due together starts in its order."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.dispatching import bounded
from tests.support.sqlite import MANY, lease, locked, sqlite_queue
from workqueue import Configuration, Options
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.fallbacks import FullQueue
from workqueue.optional import LeaseRequest
from workqueue.testing import FakeClock

NOON = datetime(2025, 6, 15, 15, 6, 40, tzinfo=UTC)  # where a FakeClock begins

options = st.builds(
    Options,
    priority=st.integers(-1, 1),
    not_before=st.sampled_from([NOON - timedelta(hours=1), NOON + timedelta(hours=1), NOON + timedelta(hours=2)]),
    not_before_floor=st.booleans(),
    payload=st.sampled_from([None, b"", b"x"]),
    meta=st.dictionaries(st.sampled_from("mn"), st.sampled_from("12")),
) | st.builds(Options, priority=st.integers(-1, 1))
enqueues = st.lists(st.tuples(st.sampled_from("abcd"), options), max_size=12)


async def everything(queue: FullQueue) -> list[object]:
    """All that can be seen of the queued keys."""
    snapshot = await queue.enumerate(MANY)
    listed = [*snapshot.queued, *sorted(snapshot.twins, key=lambda twin: twin.key), *await queue.delayed(MANY)]
    return [(q.key, q.priority, q.attempts, q.queued_time, q.not_before, q.floor, q.payload, q.meta) for q in listed]


async def live(queue: FullQueue, before: list[tuple[str, Options]], started: int) -> None:
    """Enqueue `before`, and start some of it, so that what comes then meets queued keys, twins and new ones."""
    for key, given_options in before:
        await queue.queue(key, given_options)
    await queue.lease(LeaseRequest(started, MANY))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=enqueues, started=st.integers(0, 2), together=enqueues)
def test_enqueues_of_one_batch_end_as_the_same_enqueues_one_by_one(
    tmp_path: Path, before: list[tuple[str, Options]], started: int, together: list[tuple[str, Options]]
) -> None:
    @bounded
    async def compare() -> None:
        clock = FakeClock()
        name = f"n{secrets.token_hex(8)}"
        async with MemoryQueue(clock=clock) as memory, sqlite_queue(tmp_path / "q.db", clock, name=name) as sqlite:
            await live(memory, before, started)
            await live(sqlite, before, started)

            for key, given_options in together:
                await memory.queue(key, given_options)
            await asyncio.gather(*[sqlite.queue(key, given_options) for key, given_options in together])

            assert await everything(sqlite) == await everything(memory)
            assert await sqlite.counts() == await memory.counts()
            assert (sqlite.metrics.added, sqlite.metrics.deduped) == (memory.metrics.added, memory.metrics.deduped)

    compare()


async def test_settles_and_enqueues_of_one_batch_leave_every_key_where_it_belongs(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db", FakeClock()) as queue:
        await queue.queue_many([(key, Options()) for key in "abcde"])
        a, b, c, d, e = (await lease(queue)).started
        await queue.queue("b")
        with locked(tmp_path / "q.db"):
            settles = [a.complete(), b.complete(), c.requeue(), d.release(), e.dead_letter("boom")]
            calls = asyncio.gather(*settles, *[queue.queue(key) for key in "acde"])
            await asyncio.wait({calls}, timeout=0.02)
        await calls

        counts = await queue.counts()
        assert (counts.queued, counts.in_progress, counts.dead_lettered, counts.twins) == (5, 0, 1, 0)
        attempts = {queued.key: queued.attempts for queued in (await queue.enumerate()).queued}
        assert attempts == {"a": 0, "b": 0, "c": 1, "d": 0, "e": 0}


async def test_a_flood_of_keys_that_come_due_at_once_starts_in_the_order_of_their_priority(tmp_path: Path) -> None:
    clock = FakeClock()
    async with sqlite_queue(tmp_path / "q.db", clock) as queue:
        due = NOON + timedelta(hours=1)
        items = [(f"key-{n:04}", Options(priority=n, not_before=due + timedelta(microseconds=n))) for n in range(4500)]
        await queue.queue_many(items)

        clock.freeze(timedelta(hours=2))
        counts = await queue.counts()
        listed = (await queue.enumerate(2)).queued
        leased = await lease(queue, limit=3)

        assert (counts.queued, counts.not_before) == (4500, 0)
        assert [queued.key for queued in listed] == ["key-4499", "key-4498"]
        assert [owned.key for owned in leased.started] == ["key-4499", "key-4498", "key-4497"]


async def test_a_key_that_came_due_may_be_started_from_a_listing(tmp_path: Path) -> None:
    clock = FakeClock()
    async with sqlite_queue(tmp_path / "q.db", clock) as queue:
        await queue.queue("a", Options(not_before=NOON + timedelta(hours=1)))
        clock.freeze(timedelta(hours=2))
        (listed,) = (await queue.enumerate()).queued

        assert (await listed.start()).key == "a"


async def test_a_key_that_came_due_while_no_start_is_saved_up_does_not_end_the_wait(tmp_path: Path) -> None:
    clock = FakeClock()
    async with sqlite_queue(tmp_path / "q.db", clock) as queue:
        await queue.configure(Configuration(starts_per_second=0.001))
        await queue.queue_many([("a", Options()), ("b", Options(not_before=NOON + timedelta(seconds=1)))])
        assert len((await lease(queue)).started) == 1
        clock.advance(timedelta(seconds=2))

        waiting = asyncio.ensure_future(queue.wait(timedelta(seconds=5), MANY))
        await asyncio.wait({waiting}, timeout=0.05)

        assert not waiting.done()
        waiting.cancel()
