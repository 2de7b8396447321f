"""Data in Redis that somebody else wrote or deleted: numbers out of range, other types, no settings hash."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.redis_server import shared_server
from tests.support.odd_store import look_at_everything, run_what_there_is
from tests.support.redis import eligible, fresh_name, lease, lease_one, opened
from workqueue import Configuration, KeyStatus, Options
from workqueue.errors import StoreUnusableError
from workqueue.testing import FakeClock

FAR = 2**62
GOOD = ("g1", "g2", "g3")
SCORES = ["inf", "-inf", "1e30", "-5", "9e18", "1.5", "0"]
NUMBERS = [b"", b"x", b"-1", b"1.5", b"nan", b"1e400", b"9" * 30, b"\xff\xfe", b"0"]
ODD_RECORDS = [b"P1e30", b"P-5", b"Pnan", b"Pinf", b"P0x10", b"P 17 ", b"P1_0", b"P1e999", b"P5.5", b"P" + b"9" * 5000]


def record(p: int = 0, a: int = 1, q: int = 5, f: int = 5, n: int = 0, floor: int = 0, rest: bytes = b"") -> bytes:
    return struct.pack(">Bqiqqq", floor, p, a, q, f, n) + rest


ODD_RECORDS += [each for far in (FAR, -FAR) for each in (record(p=far), record(q=far), record(f=far), record(n=far))]
ODD_RECORDS += [record(a=2**31 - 1), record(a=-5), record(floor=7, n=9), record(p=1, rest=b"\0\0\0\5\x09\0\xffab")]


class Room:
    """The keys of one queue in Redis, for somebody who writes there by hand."""

    def __init__(self, name: str) -> None:
        self._root = f"{{wq:{name}}}:"

    def ask(self, command: str, place: str, *arguments: Any) -> Any:
        return shared_server().ask(command, self._root + place, *arguments)


def put(room: Room, place: str, packed: bytes) -> None:
    """Put a key named `odd` in a place by hand."""
    if place == "queued":
        room.ask("HSET", "records", "odd", packed)
        room.ask("ZADD", "lane:0", 1, "odd")
        room.ask("ZADD", "lanes", 0, "0")
    elif place == "delayed":
        room.ask("HSET", "records", "odd", packed)
        room.ask("ZADD", "delayed", 1, "odd")
    elif place == "running":
        room.ask("HSET", "running", "odd", b"\x03tok\x03own" + packed)
        room.ask("ZADD", "leases", 1, "odd")
    else:
        room.ask("HSET", "dead", "odd", struct.pack(">qI", 5, 3) + b"err" + packed)
        room.ask("ZADD", "failed", 5, "odd")


@pytest.mark.parametrize("place", ["queued", "delayed", "running", "dead"])
async def test_an_odd_record_keeps_no_key_from_running_and_no_operator_from_looking(place: str) -> None:
    name, clock = fresh_name(), FakeClock()
    async with opened(shared_server().url(name), clock) as queue:
        for packed in ODD_RECORDS:
            await queue.queue_many((key, Options()) for key in GOOD)
            put(Room(name), place, packed)
            await look_at_everything(queue, "odd")
            put(Room(name), place, packed)  # since looking may have set it aside

            assert await run_what_there_is(queue, clock, "odd") >= set(GOOD), packed
            await look_at_everything(queue, "odd")


async def test_times_and_numbers_out_of_range_are_the_nearest_in_range() -> None:
    name = fresh_name()
    async with opened(shared_server().url(name), FakeClock()) as queue:
        put(Room(name), "queued", record(p=FAR, a=2**31 - 1, q=-FAR, f=FAR))
        (listed,) = (await queue.enumerate()).queued

        assert (listed.priority, listed.attempts) == (2**53 - 1, 2**31 - 2)
        assert listed.queued_time == datetime(1970, 1, 1, tzinfo=UTC)
        owned = await listed.start()
        assert owned.attempts == 2**31 - 1
        assert await owned.requeue(delay=timedelta(hours=1))


def _structures(room: Room) -> dict[str, Callable[[], Any]]:
    """What may stand where the queue keeps numbers, times and names of its own."""
    changes: dict[str, Callable[[], Any]] = {
        "a lane of no priority": lambda: room.ask("ZADD", "lanes", -9, "x"),
        "a lane of a fraction": lambda: (room.ask("ZADD", "lanes", -2, "1.5"), room.ask("ZADD", "lane:1.5", 5, "odd")),
        "a key that is no UTF-8": lambda: room.ask("ZADD", "lane:0", 1, b"\xff\xfe"),
        "a lease of nothing": lambda: room.ask("ZADD", "leases", 1, "odd"),
        "nothing due": lambda: room.ask("ZADD", "delayed", 1, "odd"),
        "an owner that is no UTF-8": lambda: room.ask("HSET", "running", "odd", b"\x02\xff\xfe\x02\xff\xfe" + record()),
        "no meta": lambda: room.ask("DEL", "meta"),
        "a letter from the future": lambda: room.ask(
            "HSET", "dead", "odd", struct.pack(">qI", FAR, 2) + b"\xff\xfe" + record()
        ),
    }
    for score in SCORES:
        for place in ("lane:0", "delayed", "failed", "leases", "waiters"):
            changes[f"{score} in {place}"] = lambda p=place, s=score: room.ask("ZADD", p, s, "odd")  # type: ignore[misc]
    for number in NUMBERS:
        for field in ("ready", "twins", "limits", "born", "saved", "at"):
            changes[f"{number!r} as {field}"] = lambda f=field, n=number: room.ask("HSET", "meta", f, n)  # type: ignore[misc]
        for place in ("owners", "attempts", "unreadable"):
            changes[f"{number!r} in {place}"] = lambda p=place, n=number: room.ask("HSET", p, "odd", n, n, n)  # type: ignore[misc]
    return changes


async def test_odd_scores_counters_and_settings_keep_no_key_from_running_and_no_operator_from_looking() -> None:
    name, clock = fresh_name(), FakeClock()
    async with opened(shared_server().url(name), clock, owner="odd") as queue:
        for what, change in _structures(Room(name)).items():
            await queue.queue_many((key, Options()) for key in GOOD)
            await queue.configure(Configuration(starts_per_second=1000))
            change()
            await look_at_everything(queue, "odd")

            assert await run_what_there_is(queue, clock, "odd") >= set(GOOD), what
            await look_at_everything(queue, "odd")


async def test_records_spoilt_at_random_keep_no_key_from_running_and_no_operator_from_looking() -> None:
    rng = random.Random(9)
    name, clock = fresh_name(), FakeClock()
    async with opened(shared_server().url(name), clock) as queue:
        for _ in range(60):
            await queue.queue_many((key, Options()) for key in GOOD)
            place, packed = rng.choice(["queued", "delayed", "running", "dead"]), _spoilt(rng)
            put(Room(name), place, packed)
            if rng.random() < 0.5:
                await look_at_everything(queue, "odd")
            assert await run_what_there_is(queue, clock, "odd") >= set(GOOD), (place, packed)


def _spoilt(rng: random.Random) -> bytes:
    """A record of somebody's, cut, changed or prolonged somewhere."""
    rest = b"\0\0\0\x07\x01\0\x03abcd\x01payload"
    packed = bytearray(rng.choice([b"P1700000000000000", record(), record(p=-3, n=10**15), record(p=1, rest=rest)]))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(packed) + 1)
        packed[at : at + rng.choice([0, 1, 1, 4, 99])] = rng.randbytes(rng.choice([0, 1, 1, 4]))
    return bytes(packed)


async def test_a_record_spoilt_while_its_key_is_in_progress_fails_no_settle_and_no_renewal_of_the_others() -> None:
    rng, name, clock = random.Random(9), fresh_name(), FakeClock()
    async with opened(shared_server().url(name), clock) as queue:
        for number in range(40):
            odd = f"odd {number}"
            await queue.queue_many((key, Options(priority=1)) for key in (odd, *GOOD))
            started = {owned.key: owned for owned in (await lease(queue)).started}
            running = Room(name).ask("HGET", "running", odd)
            Room(name).ask("HSET", "running", odd, running[: rng.randrange(60)] + rng.randbytes(rng.randrange(4)))
            clock.advance(queue.lease_times.renew_every)

            await rng.choice([started[odd].complete, started[odd].requeue, started[odd].release])()
            assert [await started[key].complete() for key in GOOD] == [True] * 3


async def test_a_count_of_eligible_keys_that_is_none_is_counted_anew() -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        await queue.queue_many((key, Options()) for key in GOOD)
        for number in (b"x", b"-7", b"1e3"):
            Room(name).ask("HSET", "meta", "ready", number)
            assert (await queue.counts()).queued == 3

        Room(name).ask("HSET", "meta", "ready", 99)
        await lease(queue)
        assert (await queue.counts()).queued == 0


@pytest.mark.parametrize("place", ["owners", "attempts"])
async def test_a_hash_of_counts_that_is_none_is_made_anew_by_the_next_step(place: str) -> None:
    name = fresh_name()
    async with opened(shared_server().url(name), owner="me") as queue:
        await queue.queue_many((key, Options()) for key in GOOD)
        Room(name).ask("SET", place, "x")
        started = (await lease(queue)).started

        counts = await queue.counts()
        assert (counts.in_progress, counts.queued) == (3, 0)
        assert [await owned.requeue() for owned in started] == [True] * 3


async def test_keys_stay_in_order_and_within_limits_when_the_settings_hash_was_deleted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        await queue.queue_many((key, Options()) for key in GOOD)
        owned = await lease_one(queue)
        await queue.queue(owned.key)
        Room(name).ask("DEL", "meta")

        counts = await queue.counts()
        assert (counts.queued, counts.in_progress, counts.twins) == (2, 1, 1)
        assert await owned.complete()
        assert await eligible(queue) == ["g2", "g3", "g1"]
    assert caplog.records == []  # nothing of it is gone


async def test_a_key_whose_lease_was_deleted_is_renewed_by_its_owner_and_else_an_orphan() -> None:
    name, clock = fresh_name(), FakeClock()
    async with opened(shared_server().url(name), clock) as queue:
        await queue.queue_many((key, Options()) for key in ("kept", "left"))
        started = {owned.key: owned for owned in (await lease(queue)).started}
        started["left"].abandon()
        Room(name).ask("DEL", "leases")

        assert not (await lease(queue)).recovered
        clock.advance(queue.lease_times.duration + timedelta(seconds=1))
        assert [orphan.key for orphan in (await lease(queue)).recovered] == ["left"]
        assert await started["kept"].complete()


async def test_a_key_whose_lease_lapses_in_centuries_can_be_taken_by_an_operator() -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        put(Room(name), "running", record())
        Room(name).ask("ZADD", "leases", "9e18", "odd")
        observed = (await queue.find("odd")).in_progress
        assert observed is not None
        assert not observed.orphaned

        assert await observed.requeue(backoff=timedelta(seconds=1))
        assert (await queue.get("odd")).status is KeyStatus.QUEUED


async def test_something_else_in_place_of_the_queue_is_an_error_that_says_what_to_do() -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        Room(name).ask("SET", "records", "x")
        with pytest.raises(StoreUnusableError, match="something else where this queue keeps its keys: delete it"):
            await queue.queue("a", Options(priority=1))


@pytest.mark.parametrize("limits", ["", "x", ";;;", "nan;1;inf", "0;1;-1", "1e9;1;0x10", "2147483648;1;"])
async def test_stored_settings_that_are_malformed_count_as_not_set(limits: str) -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        await queue.queue("a")
        Room(name).ask("HSET", "meta", "limits", limits)
        configuration = await queue.configuration()

        assert configuration.starts_per_second is None
        assert configuration.concurrency in (None, 10**9)
        assert len((await lease(queue)).started) == (0 if configuration.paused else 1)
