"""The background enqueuer: batches by size or linger, back-pressure, merging, and the order of one key's puts."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tests.support.dispatching import memory, settle_down
from tests.support.sinks import Sink
from workqueue import Options, open_queue
from workqueue.enqueuer import BackgroundEnqueuer
from workqueue.errors import (
    InvalidKeyError,
    InvalidSettingError,
    PayloadTooLargeError,
    QueueClosedError,
    WorkQueueError,
)
from workqueue.testing import FakeClock

FOR_EVER = timedelta(days=1)


async def test_a_full_batch_goes_at_once() -> None:
    sink = Sink()
    async with BackgroundEnqueuer(sink, batch=3, linger=FOR_EVER, clock=FakeClock()) as enqueuer:
        for key in "abcd":
            await enqueuer.put(key)
        await settle_down()
        assert sink.sizes == [3]


async def test_a_quiet_producers_key_goes_after_the_linger() -> None:
    sink, clock = Sink(), FakeClock()
    async with BackgroundEnqueuer(sink, batch=100, linger=timedelta(milliseconds=50), clock=clock) as enqueuer:
        await enqueuer.put("a")
        clock.advance(timedelta(milliseconds=49))
        await settle_down()
        assert sink.stored == []
        clock.advance(timedelta(milliseconds=1))
        await settle_down()
        assert sink.stored == ["a"]


async def test_a_key_lingers_no_longer_because_another_is_held_up() -> None:
    sink, clock = Sink(), FakeClock()
    async with BackgroundEnqueuer(sink, batch=100, linger=timedelta(seconds=1), clock=clock) as enqueuer:
        sink.gate.clear()
        await enqueuer.put("slow")
        clock.advance(timedelta(seconds=1))
        await settle_down()
        await enqueuer.put("slow")
        await enqueuer.put("other")
        clock.advance(timedelta(seconds=1))
        await settle_down()
        assert [[key for key, _ in batch] for batch in sink.batches] == [["slow"], ["other"]]
        sink.gate.set()


async def test_duplicates_within_a_batch_are_sent_once() -> None:
    sink = Sink()
    async with BackgroundEnqueuer(sink) as enqueuer:
        for priority in (1, 7, 3):
            await enqueuer.put("a", Options(priority=priority))
    assert sink.batches == [[("a", Options(priority=7))]]


async def test_the_newest_payload_arrives_last_although_batches_overlap() -> None:
    sink, clock = Sink(), FakeClock()
    async with BackgroundEnqueuer(sink, batch=1, in_flight=4, clock=clock) as enqueuer:
        sink.gate.clear()
        await enqueuer.put("a", Options(payload=b"1"))
        await settle_down()
        await enqueuer.put("a", Options(payload=b"2"))
        await settle_down()
        assert len(sink.batches) == 1, "the second waits for the first"
        sink.gate.set()
    assert [options.payload for [(_, options)] in sink.batches] == [b"1", b"2"]


async def test_no_more_batches_are_on_their_way_than_allowed() -> None:
    sink = Sink()
    async with BackgroundEnqueuer(sink, batch=1, in_flight=2) as enqueuer:
        sink.gate.clear()
        for key in "abcd":
            await enqueuer.put(key)
        await settle_down()
        assert sink.sizes == [1, 1]
        sink.gate.set()
    assert sorted(sink.stored) == list("abcd")


async def test_put_waits_while_the_buffer_is_full() -> None:
    sink = Sink()
    async with BackgroundEnqueuer(sink, buffer=2, batch=2, in_flight=1) as enqueuer:
        sink.gate.clear()
        for key in "abcd":
            await enqueuer.put(key)
        waiting = asyncio.create_task(enqueuer.put("e"))
        await settle_down()
        assert not waiting.done()
        sink.gate.set()
        await waiting
    assert sorted(sink.stored) == list("abcde")


async def test_a_producer_that_gives_up_waiting_lets_the_others_wait_on() -> None:
    sink = Sink()
    async with BackgroundEnqueuer(sink, buffer=1, batch=1, in_flight=1) as enqueuer:
        sink.gate.clear()
        for key in "ab":
            await enqueuer.put(key)
        impatient, patient = asyncio.create_task(enqueuer.put("c")), asyncio.create_task(enqueuer.put("d"))
        await settle_down()
        impatient.cancel()
        await settle_down()
        assert (impatient.cancelled(), patient.done()) == (True, False)
        sink.gate.set()
        await patient
    assert sorted(sink.stored) == ["a", "b", "d"]


async def test_try_put_says_that_there_is_no_room_instead_of_dropping() -> None:
    sink = Sink()
    async with BackgroundEnqueuer(sink, buffer=1, linger=FOR_EVER, clock=FakeClock()) as enqueuer:
        assert [enqueuer.try_put("a"), enqueuer.try_put("b"), enqueuer.try_put("a")] == [True, False, True]
    assert sink.stored == ["a"]


async def test_a_producer_whose_keys_all_merge_does_not_starve_the_sender() -> None:
    sink = Sink()
    async with BackgroundEnqueuer(sink, batch=10, linger=timedelta(0)) as enqueuer:
        for _ in range(1000):
            await enqueuer.put("a")
        assert len(sink.batches) > 10


async def test_what_cannot_be_stored_is_refused_at_once() -> None:
    async with BackgroundEnqueuer(Sink()) as enqueuer:
        with pytest.raises(InvalidKeyError):
            await enqueuer.put("a\n")
        with pytest.raises(PayloadTooLargeError):
            await enqueuer.put("a", Options(payload=bytes(256 * 1024 + 1)))
        assert (enqueuer.metrics.put, enqueuer.metrics.buffered) == (0, 0)


async def test_keys_of_synchronous_code_come_from_its_own_threads() -> None:
    async with open_queue("memory://") as queue:
        async with BackgroundEnqueuer(queue, buffer=10, batch=5) as enqueuer:

            def produce(thread: int) -> None:
                for number in range(50):
                    enqueuer.put_threadsafe(f"{thread}/{number}")

            await asyncio.gather(*[asyncio.to_thread(produce, thread) for thread in range(4)])
        assert (await queue.counts()).queued == 200


async def test_the_loops_own_thread_may_not_wait_for_itself() -> None:
    async with BackgroundEnqueuer(Sink()) as enqueuer:
        with pytest.raises(WorkQueueError, match="thread of the event loop"):
            enqueuer.put_threadsafe("a")


def test_a_thread_does_not_wait_for_a_loop_that_is_gone() -> None:
    refused: list[Exception] = []

    async def main(started: threading.Event) -> threading.Thread:
        sink = Sink()
        enqueuer = BackgroundEnqueuer(sink, buffer=1, batch=1, in_flight=1, drain_timeout=timedelta(0), on_error=print)

        def produce() -> None:
            try:
                for key in "abcdef":
                    enqueuer.put_threadsafe(key)
                    started.set()
            except QueueClosedError as error:
                refused.append(error)

        async with enqueuer:
            sink.gate.clear()
            thread = threading.Thread(target=produce)
            thread.start()
            await asyncio.to_thread(started.wait, 30)
        return thread

    asyncio.run(main(threading.Event())).join(timeout=30)
    assert len(refused) == 1


def test_a_thread_that_came_too_late_for_a_loop_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.new_event_loop()
    enqueuer = BackgroundEnqueuer(Sink())
    loop.run_until_complete(enqueuer.__aenter__())
    submit = asyncio.run_coroutine_threadsafe

    def submit_late(putting: Any, loop: asyncio.AbstractEventLoop) -> Any:
        loop.run_until_complete(enqueuer.close())
        return submit(putting, loop)

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", submit_late)
    with ThreadPoolExecutor() as threads, pytest.raises(QueueClosedError):
        threads.submit(enqueuer.put_threadsafe, "a").result(timeout=30)
    loop.close()


async def test_it_feeds_any_queue() -> None:
    queue = memory()
    async with BackgroundEnqueuer(queue) as enqueuer:
        await enqueuer.put("a", Options(priority=3))
        await enqueuer.close()
        assert (await queue.get("a")).priority == 3
    assert enqueuer.metrics.name == queue.name


@pytest.mark.parametrize("wrong", [{"buffer": 0}, {"batch": 0}, {"in_flight": 0}, {"linger": timedelta(-1)}])
def test_a_setting_out_of_range_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidSettingError, match=next(iter(wrong))):
        BackgroundEnqueuer(Sink(), **wrong)  # type: ignore[arg-type]
