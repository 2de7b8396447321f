"""Pages of a queue in Redis: how many scripts they take, and what somebody else wrote."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakes.redis_server import shared_server
from tests.support.redis import fresh_name, lease, opened, scripts_run
from workqueue import Options
from workqueue.backends.redis.backend import RedisQueue
from workqueue.clock import from_us
from workqueue.errors import InvalidOptionsError
from workqueue.paging import PageRequest, Place, cursor_at
from workqueue.testing import FakeClock


async def paged(queue: RedisQueue, place: Place, limit: int = 1) -> list[str]:
    keys: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await queue.page(PageRequest(place, limit, cursor))
        keys += [key.key for key in page.keys]
        cursor = page.cursor or None
    return keys


def write(name: str, *command: str | bytes) -> None:
    verb, place, *rest = command
    shared_server().ask(verb, f"{{wq:{name}}}:{place!s}", *rest)


@pytest.mark.parametrize("lanes", [1, 700])
async def test_a_page_takes_as_many_scripts_wherever_it_stands(lanes: int) -> None:
    async with opened() as queue:
        await queue.queue_many((f"k{number:05}", Options(priority=number % lanes)) for number in range(3000))
        cursor, counted = "", []
        for _ in range(5):
            before = scripts_run(shared_server())
            cursor = (await queue.page(PageRequest(Place.QUEUED, 500, cursor))).cursor
            counted.append(scripts_run(shared_server()) - before)

    assert counted == [3] * 5


async def test_what_cannot_be_read_is_set_aside_and_hides_no_other_key() -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        for key in "abc":
            await queue.queue(f"dead {key}")
        for owned in (await lease(queue)).started:
            await owned.dead_letter("boom")
        await queue.queue_many((f"running {key}", Options()) for key in "abc")
        await lease(queue)
        await queue.queue_many((f"queued {key}", Options(priority=1)) for key in "abc")
        for place, key in (("dead", "dead b"), ("running", "running b"), ("records", "queued b")):
            write(name, "HSET", place, key, b"?")

        assert await paged(queue, Place.QUEUED) == ["queued a", "queued c"]
        assert await paged(queue, Place.IN_PROGRESS) == ["running a", "running c"]
        assert sorted(await paged(queue, Place.DEAD_LETTERED)) == ["dead a", "dead c"]
        assert await paged(queue, Place.UNREADABLE) == ["dead b", "queued b", "running b"]
        odd = (await queue.page(PageRequest(Place.UNREADABLE))).keys[0]
        assert await odd.drop()  # type: ignore[union-attr]
        assert await paged(queue, Place.UNREADABLE, 2) == ["queued b", "running b"]


@pytest.mark.parametrize("score", ["inf", "-inf", "1e30", "-5", "1.5", "0", "1732000000000000.5"])
async def test_a_key_with_a_score_that_somebody_else_wrote_is_on_one_page_and_hides_no_other(score: str) -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        await queue.queue_many((key, Options()) for key in "abcd")
        write(name, "ZADD", "lane:0", score, "b")
        write(name, "ZADD", "lanes", "3", "no priority")

        assert sorted(await paged(queue, Place.QUEUED)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("key", ["\udcff", "é", "\U0001f600", "a\x00b"])
async def test_a_key_that_somebody_else_stored_is_on_one_page(key: str) -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        await queue.queue_many((each, Options()) for each in "ab")
        for place in ("0", "1732000000000000"):
            write(name, "ZADD", "lane:0", place, key.encode("utf-8", "surrogateescape"))

        assert sorted(await paged(queue, Place.QUEUED)) == sorted(["a", "b", key])


NUMBERS = [("0", "nan"), ("0", "("), ("0", ""), ("x", "1"), ("", "1"), ("0", "1.2.3"), ("inf", "1"), ("1" * 40, "1")]


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
async def test_a_cursor_with_numbers_that_no_page_gave_is_refused(numbers: tuple[str, str]) -> None:
    async with opened() as queue:
        await queue.queue("a")
        with pytest.raises(InvalidOptionsError):
            await queue.page(PageRequest(Place.QUEUED, cursor=cursor_at(Place.QUEUED, *numbers, "a")))


async def test_a_page_of_many_keys_that_came_due_has_them_all_in_order() -> None:
    clock = FakeClock()
    soon = from_us(clock.wall_us()) + timedelta(minutes=1)
    async with opened("", clock) as queue:
        await queue.queue_many((f"k{number:05}", Options(not_before=soon)) for number in range(2500))
        clock.advance(timedelta(minutes=2))

        keys = await paged(queue, Place.QUEUED, 1000)

    assert keys == [f"k{number:05}" for number in range(2500)]
