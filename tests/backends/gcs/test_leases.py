"""Leases in a bucket: renewed from a thread, by the store's clock; and how hard a busy bucket is tried."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from email.utils import formatdate
from typing import Literal

import pytest

from tests.fakes.gcs.faults import Fault
from tests.fakes.gcs.requests import Call
from tests.fakes.gcs.server import GcsServer
from tests.support.dispatching import until
from tests.support.gcs import bucket_queue, emulator, names, operations, start_all, start_one
from workqueue.backends.gcs.api.store_time import StoreTime
from workqueue.errors import StoreUnavailableError
from workqueue.optional import LeaseRequest
from workqueue.options import Options
from workqueue.testing import FakeClock


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with emulator() as running:
        yield running


async def test_all_keys_of_a_process_are_renewed_at_once(server: GcsServer) -> None:
    clock = FakeClock()
    async with bucket_queue(server, clock) as queue:
        for key in "abc":
            await queue.queue(key)
        started = await start_all(queue)
        server.reset()
        clock.advance(timedelta(seconds=14))
        assert sorted(operations(server)) == [f"patch in-progress/{key}" for key in "aabbcc"]
        assert not any(owned.lost.is_set() for owned in started)


@pytest.mark.parametrize("drop", ["before", "after"])
async def test_a_renewal_whose_answer_is_lost_costs_no_lease(
    server: GcsServer, drop: Literal["before", "after"]
) -> None:
    """The renewal that landed bumped the metageneration, which the next one does not ask for."""

    clock = FakeClock()
    async with bucket_queue(server, clock) as queue, bucket_queue(server, clock) as other:
        owned = await start_one(queue)
        server.faults.add(Fault("patch", drop=drop, times=4))
        clock.advance(timedelta(seconds=30))
        assert (await other.lease(LeaseRequest(9, 9))).recovered == []
        assert await owned.complete()


async def test_leases_are_renewed_while_a_bulk_enqueue_waits_for_every_connection(server: GcsServer) -> None:
    clock = FakeClock()
    async with bucket_queue(server, clock, connections=8) as queue:
        owned = await start_one(queue)
        stuck = server.faults.add(Fault("insert", hang="before", times=None))
        storing = asyncio.ensure_future(queue.queue_many((f"{number}", Options()) for number in range(100)))
        await until(lambda: stuck.seen >= 8)
        clock.advance(timedelta(seconds=60))
        assert not owned.lost.is_set()
        stuck.release()
        await storing
        assert await owned.complete()
        assert len(names(server)) == 100


async def test_a_renewal_that_is_not_allowed_says_so_in_one_line(
    server: GcsServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    async with bucket_queue(server, clock) as queue:
        await queue.queue_many((key, Options()) for key in "abc")
        await start_all(queue)
        server.store.denied = {"storage.objects.update"}
        clock.freeze(timedelta(seconds=5))

    (line,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert "storage.objects.update" in line
    assert "\n" not in line


async def test_an_owner_that_cannot_renew_is_told_before_its_lease_lapses(server: GcsServer) -> None:
    clock = FakeClock()
    async with bucket_queue(server, clock) as queue, bucket_queue(server, clock) as other:
        owned = await start_one(queue)
        server.faults.add(Fault("patch", status=503, times=None))
        clock.advance(timedelta(seconds=14))
        assert owned.lost.is_set()
        assert (await other.lease(LeaseRequest(9, 9))).recovered == []


async def test_one_key_that_cannot_be_renewed_does_not_cost_the_others_their_leases(server: GcsServer) -> None:
    clock = FakeClock()
    async with bucket_queue(server, clock) as queue:
        await start_one(queue, "bad")
        good = await start_one(queue, "good")
        server.faults.add(Fault("patch", prefix="in-progress/bad", status=503, times=None))
        clock.advance(timedelta(seconds=20))
        assert not good.lost.is_set()
        assert await good.complete()


async def test_a_settle_that_fails_is_found_out_about_by_the_next_one(server: GcsServer) -> None:
    """The delete was processed, and none of its answers came through."""

    async with bucket_queue(server, FakeClock()) as queue:
        owned = await start_one(queue)
        server.faults.add(Fault("delete", drop="after", times=3))
        with pytest.raises(StoreUnavailableError):
            await owned.complete()
        assert await owned.complete()
        assert not await owned.complete()

    assert names(server) == []


@pytest.mark.parametrize("cut", ["in-progress/", "in-progress-slots/"])
async def test_a_settle_that_was_cancelled_is_found_out_about_by_the_next_one(server: GcsServer, cut: str) -> None:
    async with bucket_queue(server, FakeClock(), exact=True) as queue:
        owned = await start_one(queue)
        fault = server.faults.add(Fault("delete", prefix=cut, hang="after"))
        settling = asyncio.ensure_future(owned.complete())
        await fault.wait_async()
        await until(lambda: not any(name.startswith(cut) for name in names(server)))
        settling.cancel()
        await asyncio.wait((settling,))
        assert await owned.complete()
        assert names(server) == ["in-progress-settings"]


@pytest.mark.parametrize("answers_lost", [1, 3])
async def test_a_settle_whose_answer_is_lost_was_applied_though_the_key_runs_again(
    server: GcsServer, answers_lost: int
) -> None:
    """Where the object was, there is another attempt's by the time that the delete is sent again."""

    clock = FakeClock()
    async with bucket_queue(server, clock) as queue, bucket_queue(server, clock) as other:
        owned, current = await start_one(queue), []

        async def start_again(call: Call) -> None:
            current.extend(await start_all(other))

        server.faults.add(Fault("delete", prefix="in-progress/", drop="after", after=start_again))
        server.faults.add(Fault("delete", prefix="in-progress/", drop="after", nth=2, times=answers_lost - 1))
        if answers_lost == 3:  # every try there is
            with pytest.raises(StoreUnavailableError):
                await owned.release()
        assert await owned.release()
        assert [await each.complete() for each in current] == [True]


async def test_a_lease_lives_on_while_its_settle_is_tried_again(server: GcsServer) -> None:
    clock = FakeClock()
    async with bucket_queue(server, clock) as queue, bucket_queue(server, clock) as other:
        owned = await start_one(queue)
        server.faults.add(Fault("delete", status=503, times=3))
        with pytest.raises(StoreUnavailableError):
            await owned.complete()
        clock.advance(timedelta(seconds=60))
        assert (await other.lease(LeaseRequest(9, 9))).recovered == []
        assert await owned.complete()


async def test_a_throttled_delete_is_tried_ten_times(server: GcsServer) -> None:
    async with bucket_queue(server, FakeClock()) as queue:
        owned = await start_one(queue)
        server.reset()
        server.faults.add(Fault("delete", status=429, times=9))
        assert await owned.complete()

    assert operations(server) == ["delete in-progress/a"] * 10


async def test_an_object_that_takes_one_write_a_second_is_waited_for(server: GcsServer) -> None:
    """https://cloud.google.com/storage/quotas: one write a second to one object."""

    async with bucket_queue(server, None, first_pause=0.2, tries=8) as queue:
        server.limit_writes(per_second=5, burst=1)
        await queue.queue("a")
        (owned,) = await start_all(queue)
        assert await owned.requeue()
        (owned,) = await start_all(queue)
        assert await owned.complete()

    assert any(entry.status == 429 for entry in server.log.entries)


async def test_a_process_whose_clock_is_wrong_recovers_no_live_lease(server: GcsServer) -> None:
    """Leases go by the server's clock, an hour ahead of this machine's."""
    server.clock.advance(3600)

    async with bucket_queue(server, None) as queue, bucket_queue(server, None) as other:
        owned = await start_one(queue)
        assert (await other.lease(LeaseRequest(9, 9))).recovered == []
        server.clock.advance(16)
        await other.get("a")
        assert [orphan.key for orphan in (await other.lease(LeaseRequest(9, 9))).recovered] == ["a"]
        assert not await owned.complete()


class Steady:
    """A machine whose clocks stand at these numbers."""

    def __init__(self) -> None:
        self.us = 1_000_000_000


def test_the_store_s_time_is_narrowed_down_by_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    time, steady = StoreTime(), Steady()
    monkeypatch.setattr(time._clock, "steady_us", lambda: steady.us)
    apart_us = 1_790_000_000_123_456  # what is to be found out
    for millisecond in range(0, 3000, 7):
        sent_us = 1_000_000_000 + millisecond * 1000
        date = formatdate((sent_us + 2000 + apart_us) // 1_000_000, usegmt=True)
        time.heard(date, sent_us, sent_us + 4000)
        steady.us = sent_us + 4000
    assert abs(time.now_us() - steady.us - apart_us) < 10_000


def test_one_answer_alone_tells_the_store_s_time_to_half_a_second() -> None:
    for apart_us in range(1_790_000_000_000_000, 1_790_000_001_000_000, 50_000):
        time = StoreTime()
        sent_us = time.steady_us()
        time.heard(formatdate((sent_us + apart_us) // 1_000_000, usegmt=True), sent_us, sent_us)
        passed_us = time.steady_us() - sent_us
        assert abs(time.now_us() - passed_us - sent_us - apart_us) <= 500_000 + 10_000


def test_a_store_whose_clock_is_set_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    time = StoreTime()
    sent_us = time.steady_us()
    for seconds in (1_790_000_000, 1_790_009_000, 1_780_000_000):
        time.heard(formatdate(seconds, usegmt=True), sent_us, sent_us + 1000)
        assert abs(time.now_us() / 1e6 - seconds) < 10


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 99 Nov 2026 00:00:00 GMT"])
def test_a_date_that_is_none_is_not_believed(date: str) -> None:
    time = StoreTime()
    before_us = time.now_us()
    time.heard(date, time.steady_us(), time.steady_us())
    assert abs(time.now_us() - before_us) < 5_000_000
