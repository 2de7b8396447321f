"""What a page of a SQLite queue costs: as many rows as it has, wherever it stands. And rows that a hand wrote."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.sqlite import shell, sqlite_queue
from workqueue import Options
from workqueue.backends.sqlite.backend import SqliteQueue
from workqueue.clock import from_us
from workqueue.optional import LeaseRequest
from workqueue.paging import PageRequest, Place
from workqueue.testing import FakeClock

MANY = 5000


async def steps_of(queue: SqliteQueue, request: PageRequest) -> int:
    """How many steps of SQLite's machine a page takes, in hundreds."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    await queue._reads.look(lambda view: view._connection.set_progress_handler(count, 100))
    assert len((await queue.page(request)).keys) == request.limit
    await queue._reads.look(lambda view: view._connection.set_progress_handler(None, 0))
    return steps


async def far_back(queue: SqliteQueue, place: Place) -> str:
    """The cursor of a page behind 4,000 keys."""
    cursor = ""
    for _ in range(4):
        cursor = (await queue.page(PageRequest(place, 1000, cursor))).cursor
    return cursor


@pytest.mark.parametrize("place", [Place.QUEUED, Place.DELAYED])
async def test_a_page_far_back_takes_no_more_steps_than_the_first_one(tmp_path: Path, place: Place) -> None:
    clock = FakeClock()
    later = Options(not_before=from_us(clock.wall_us()) + timedelta(hours=1))
    async with sqlite_queue(tmp_path / "q.db", clock) as queue:
        # All of one moment, which is the worst that there is to find a place in.
        options = later if place is Place.DELAYED else Options()
        await queue.queue_many([(f"k{number:05}", options) for number in range(MANY)])
        cursor = await far_back(queue, place)

        first = await steps_of(queue, PageRequest(place, 10))
        behind = await steps_of(queue, PageRequest(place, 10, cursor))

    assert behind <= first + 5


async def test_a_backlog_that_came_due_is_promoted_once_and_not_sorted_for_every_page(tmp_path: Path) -> None:
    clock = FakeClock()
    soon = Options(not_before=from_us(clock.wall_us()) + timedelta(minutes=1))
    async with sqlite_queue(tmp_path / "q.db", clock) as queue:
        await queue.queue_many([(f"k{number:05}", soon) for number in range(MANY)])
        clock.advance(timedelta(minutes=2))
        await queue.page(PageRequest(Place.QUEUED, 10))

        steps = await steps_of(queue, PageRequest(Place.QUEUED, 10))

    assert steps <= MANY // 100


@pytest.mark.parametrize(
    "number", ["'high'", "1.5", "-3", "x'00ff'", "CAST(x'68ff' AS TEXT)", "9223372036854775807", "-9223372036854775808"]
)
async def test_a_key_with_a_number_that_a_hand_wrote_is_on_one_page_and_hides_no_other(
    tmp_path: Path, number: str
) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue_many([(key, Options(priority=place % 2)) for place, key in enumerate("abcde")])
        with shell(tmp_path / "q.db") as hand:
            hand.execute(f"UPDATE queued SET priority = {number} WHERE key = 'c'")
            hand.execute(f"UPDATE queued SET queued_us = {number} WHERE key = 'd'")
        keys, cursor = [], None
        while cursor != "":
            page = await queue.page(PageRequest(Place.QUEUED, 1, cursor or ""))
            keys += [key.key for key in page.keys]
            cursor = page.cursor

    assert sorted(keys) == ["a", "b", "c", "d", "e"]


async def test_a_letter_whose_id_is_given_again_is_not_met_by_a_later_page(tmp_path: Path) -> None:
    clock = FakeClock()
    async with sqlite_queue(tmp_path / "q.db", clock) as queue:
        await queue.queue_many([(key, Options()) for key in "abcd"])
        for owned in (await queue.lease(LeaseRequest(4, 4))).started:
            await owned.dead_letter("boom")
        first = await queue.page(PageRequest(Place.DEAD_LETTERED, 1))
        clock.advance(timedelta(minutes=1))
        for key in "bcd":
            letter = (await queue.find(key)).dead_letter
            assert letter is not None
            assert await letter.requeue()
        for owned in (await queue.lease(LeaseRequest(4, 4))).started:
            await owned.dead_letter("again")

        rest = await queue.page(PageRequest(Place.DEAD_LETTERED, 10, first.cursor))

    assert [letter.key for letter in first.keys] == ["d"]
    assert [letter.key for letter in rest.keys] == ["a"]
