"""The gauges: how many keys are where, and how long the longest-waiting one could have been started by now."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from workqueue.conformance.case import Case, expect
from workqueue.conformance.scenario import Need, scenario
from workqueue.optional import Counts


async def _counted(case: Case, **expected: Any) -> None:
    """Expect these counts, and zero of all others; the longest wait and the attempts only if they are given."""
    counts = await case.queue.counts()
    names = ("queued", "not_before", "twins", "in_progress", "dead_lettered")
    expect({name: getattr(counts, name) for name in names}, {name: expected.get(name, 0) for name in names}, "counts")
    for name in expected.keys() - set(names):
        expect(getattr(counts, name), expected[name], name)


@scenario(Need.COUNTS)
async def an_empty_queue_counts_nothing(case: Case) -> None:
    expect(await case.queue.counts(), Counts(), "the counts")


@scenario(Need.COUNTS, Need.CLOCK)
async def a_key_is_counted_where_it_is(case: Case) -> None:
    await case.enqueue("a")
    await case.enqueue("b", not_before=case.later(60))
    await _counted(case, queued=1, not_before=1)
    owned = await case.start("a")
    await _counted(case, in_progress=1, not_before=1)
    await case.enqueue("a")
    await _counted(case, in_progress=1, twins=1, not_before=1)
    await owned.dead_letter("boom")
    await _counted(case, queued=1, dead_lettered=1, not_before=1)
    await (await case.start("a")).complete()
    await _counted(case, not_before=1)
    case.advance(60)
    await (await case.listed("b")).drop()
    await _counted(case)


@scenario(Need.COUNTS, Need.CLOCK)
async def a_key_counts_as_queued_once_its_time_has_come(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(60))
    case.advance(59)
    await _counted(case, not_before=1)
    case.advance(1)
    await _counted(case, queued=1)


@scenario(Need.COUNTS, Need.CLOCK)
async def merging_moves_a_key_and_does_not_count_it_twice(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(60))
    await case.enqueue("a")
    await _counted(case, queued=1)
    await case.enqueue("a", not_before=case.later(60), not_before_floor=True)
    await _counted(case, not_before=1)
    await case.enqueue("a", priority=5)
    await _counted(case, not_before=1)


@scenario(Need.COUNTS, Need.CLOCK)
async def a_twin_that_must_wait_is_counted_as_waiting_once_its_key_is_settled(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("a", not_before=case.later(60))
    await _counted(case, in_progress=1, twins=1)
    await owned.complete()
    await _counted(case, not_before=1)


@scenario(Need.COUNTS, Need.CLOCK)
async def every_way_back_to_the_queue_is_counted(case: Case) -> None:
    await (await case.started("a")).release()
    await _counted(case, queued=1)
    await (await case.start("a")).requeue()
    await _counted(case, queued=1)
    await (await case.start("a")).requeue(backoff=timedelta(seconds=60))
    await _counted(case, not_before=1)
    case.advance(60)
    (await case.start("a")).abandon()
    case.lapse()
    await _counted(case, in_progress=1)
    await case.lease(limit=0)
    await _counted(case, not_before=1)


@scenario(Need.COUNTS, Need.CLOCK)
async def the_longest_wait_is_that_of_the_key_that_could_have_been_started_first(case: Case) -> None:
    await _counted(case, oldest_queued_seconds=0.0)
    await case.enqueue("waits", not_before=case.later(100))
    case.advance(10)
    await _counted(case, not_before=1, oldest_queued_seconds=0.0)
    await case.enqueue("low", priority=-1)
    case.advance(20)
    await case.enqueue("high", priority=1)
    case.advance(5)
    await _counted(case, queued=2, not_before=1, oldest_queued_seconds=25.0)
    await case.start("high")
    await (await case.start("low")).complete()
    case.advance(70)
    await _counted(case, queued=1, in_progress=1, oldest_queued_seconds=5.0)


@scenario(Need.COUNTS, Need.CLOCK)
async def the_highest_attempts_are_over_queued_and_running_keys(case: Case) -> None:
    await (await case.started("a")).requeue()
    await (await case.start("a")).requeue(backoff=timedelta(seconds=60))
    await _counted(case, not_before=1, max_attempts=2)
    owned = await case.started("b")
    await _counted(case, not_before=1, in_progress=1, max_attempts=2)
    case.advance(60)
    await (await case.start("a")).complete()
    await _counted(case, in_progress=1, max_attempts=1)
    await owned.complete()
    await _counted(case, max_attempts=0)


@scenario(Need.COUNTS)
async def keys_in_progress_are_counted_by_owner(case: Case) -> None:
    for key in "abc":
        await case.enqueue(key)
    await case.lease(await case.peer("blue"), limit=2)
    await case.lease(await case.peer("green"), limit=1)
    expect(dict((await case.queue.counts()).in_progress_by_owner), {"blue": 2, "green": 1}, "the counts by owner")
