"""Searching a place: which keys match, where a search stops, and that it can go on from there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from examples.three_verbs import Table, ThreeVerbs
from tests.support.dispatching import opened
from workqueue import Options
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import InvalidOptionsError
from workqueue.fallbacks import FullQueue, with_fallbacks
from workqueue.handles import Unreadable
from workqueue.interface import KeyStatus
from workqueue.optional import LeaseRequest
from workqueue.paging import Page, PageRequest, Place
from workqueue.searching import Filter, search
from workqueue.testing import FakeClock


def memory(clock: FakeClock | None = None) -> MemoryQueue:
    return opened(MemoryQueue(clock=clock or FakeClock()))


async def found(queue: FullQueue, place: Place, wanted: Filter) -> list[str]:
    return [key.key for key in (await search(queue, place, wanted)).keys]


async def fail(queue: FullQueue, key: str, error: str) -> None:
    await queue.queue(key)
    [owned] = (await queue.lease(LeaseRequest(1, 100))).started
    await owned.dead_letter(error)


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        (Filter(), ["b/2", "a/1", "b/1", "b/3"]),
        (Filter(prefix="b/"), ["b/2", "b/1", "b/3"]),
        (Filter(priority=0), ["b/1", "b/3"]),
        (Filter(priority=0, prefix="b/", min_attempts=1), ["b/1"]),
        (Filter(error="disk"), ["b/1"]),
        (Filter(older_than=timedelta(minutes=30)), ["a/1", "b/1"]),
        (Filter(prefix="c"), []),
    ],
    ids=str,
)
async def test_all_that_is_given_must_hold(wanted: Filter, keys: list[str]) -> None:
    clock = FakeClock()
    queue = memory(clock)
    await queue.queue("b/1")
    [owned] = (await queue.lease(LeaseRequest(1, 1))).started
    await owned.requeue(error="disk full")
    await queue.queue("a/1", Options(priority=1))
    clock.advance(timedelta(hours=1))
    await queue.queue("b/2", Options(priority=7))
    await queue.queue("b/3")

    assert await found(queue, Place.QUEUED, wanted) == keys


async def test_a_dead_letter_is_as_old_as_its_failure_and_has_its_own_error() -> None:
    clock = FakeClock()
    queue = memory(clock)
    await fail(queue, "a", "no such file")
    clock.advance(timedelta(hours=1))
    await fail(queue, "b", "disk full")

    assert await found(queue, Place.DEAD_LETTERED, Filter(older_than=timedelta(minutes=59))) == ["a"]
    assert await found(queue, Place.DEAD_LETTERED, Filter(error="disk")) == ["b"]


async def test_a_key_in_progress_is_as_old_as_its_attempt() -> None:
    clock = FakeClock()
    queue = memory(clock)
    await queue.queue("a")
    clock.advance(timedelta(hours=1))
    await queue.lease(LeaseRequest(1, 1))
    clock.advance(timedelta(minutes=1))

    assert await found(queue, Place.IN_PROGRESS, Filter(older_than=timedelta(minutes=2))) == []
    assert await found(queue, Place.IN_PROGRESS, Filter(older_than=timedelta(seconds=59))) == ["a"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("budget", [1, 3, 10, 1000])
async def test_searches_that_go_on_find_every_match_once(limit: int, budget: int) -> None:
    queue = memory()
    for number in range(60):
        await queue.queue(f"{'odd' if number % 2 else 'even'}/{number:02}")

    keys: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        matches = await search(queue, Place.QUEUED, Filter(prefix="odd/"), limit=limit, cursor=cursor, budget=budget)
        assert len(matches.keys) <= limit
        assert matches.looked_at <= budget
        keys += [key.key for key in matches.keys]
        cursor = matches.cursor or None

    assert keys == [f"odd/{number:02}" for number in range(1, 60, 2)]


async def test_a_search_says_how_far_it_looked() -> None:
    queue = memory()
    for number in range(50):
        await queue.queue(f"k{number:02}")

    matches = await search(queue, Place.QUEUED, Filter(prefix="z"), budget=20)

    assert (matches.keys, matches.looked_at, bool(matches.cursor)) == ([], 20, True)


async def test_below_the_wanted_priority_nobody_looks() -> None:
    queue = memory()
    await queue.queue_many([(f"high{number}", Options(priority=1)) for number in range(3)])
    await queue.queue_many([(f"k{number:04}", Options()) for number in range(3000)])

    matches = await search(queue, Place.QUEUED, Filter(priority=1), budget=10_000)

    assert (len(matches.keys), matches.looked_at, matches.cursor) == (3, 100, "")


class Shifting(MemoryQueue):
    """A queue that loses its first key whenever a page of it was read."""

    async def page(self, request: PageRequest) -> Page:
        page = await super().page(request)
        await page.keys[0].drop()  # type: ignore[union-attr]
        return page


async def test_keys_that_go_during_a_search_make_it_skip_no_other() -> None:
    queue = opened(Shifting(clock=FakeClock()))
    for number in range(20):
        await queue.queue(f"k{number:02}")

    first = await search(queue, Place.QUEUED, Filter(prefix="k"), limit=5)
    second = await search(queue, Place.QUEUED, Filter(prefix="k"), limit=100, cursor=first.cursor)

    assert len(first.keys) <= 5
    last = first.keys[-1].key
    assert [key.key for key in second.keys] == [f"k{number:02}" for number in range(int(last[1:]) + 1, 20)]


async def test_what_cannot_be_read_has_a_name_and_nothing_else() -> None:
    async def remove() -> bool:
        return True

    odd, when = Unreadable("a/1", KeyStatus.QUEUED, "?", remove), datetime.now(UTC)

    assert Filter(prefix="a/").matches(odd, when)
    assert not Filter(prefix="a/", min_attempts=1).matches(odd, when)
    assert not Filter(error="?").matches(odd, when)


@pytest.mark.parametrize("number", [0, -1, True, "1"])
async def test_a_limit_and_a_budget_are_whole_numbers_above_zero(number: Any) -> None:
    for name in ("limit", "budget"):
        with pytest.raises(InvalidOptionsError, match=name):
            await search(memory(), Place.QUEUED, Filter(), **{name: number})


@pytest.mark.parametrize(
    "given", [{"prefix": 1}, {"priority": "1"}, {"min_attempts": None}, {"older_than": 3600}, {"error": b"x"}], ids=str
)
def test_a_filter_is_of_the_types_that_it_says(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionsError, match=next(iter(given))):
        Filter(**given)


async def test_a_queue_of_three_verbs_is_paged_however_long_it_is() -> None:
    queue = with_fallbacks(opened(ThreeVerbs(Table(), clock=FakeClock())))
    for number in range(2500):
        await queue.queue(f"k{number:04}")

    matches = await search(queue, Place.QUEUED, Filter(prefix="k24"), limit=100)

    assert [key.key for key in matches.keys] == [f"k{number}" for number in range(2400, 2500)]
