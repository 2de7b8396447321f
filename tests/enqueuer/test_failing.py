"""What fails is tried again or reported, key by key; and the enqueuer ends with every key accounted for."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest

from tests.support.dispatching import settle_down
from tests.support.sinks import Refusing, Sink, failures
from workqueue import Options, StoreUnavailableError
from workqueue.enqueuer import BackgroundEnqueuer, FailedKey
from workqueue.errors import KeysNotSentError, QueueClosedError, StoreUnusableError
from workqueue.testing import FakeClock

SECOND = timedelta(seconds=1)


async def pass_time(clock: FakeClock, seconds: int) -> None:
    for _ in range(seconds):
        clock.advance(SECOND)
        await settle_down(10)


async def test_a_batch_is_sent_again_while_the_store_is_down() -> None:
    sink, clock, failed = Sink(), FakeClock(), list[FailedKey]()
    sink.fail = [StoreUnavailableError()] * 3
    async with BackgroundEnqueuer(sink, on_error=failed.append, batch=2, clock=clock) as enqueuer:
        await enqueuer.put("a")
        await enqueuer.put("b")
        await pass_time(clock, 5)
        assert (sink.stored, failed, sink.sizes) == (["a", "b"], [], [2, 2, 2, 2])


async def test_keys_that_fail_beyond_all_patience_are_reported_one_by_one() -> None:
    sink, clock, failed = Sink(), FakeClock(), list[FailedKey]()
    sink.fail = [StoreUnavailableError("down")] * 1000
    async with BackgroundEnqueuer(
        sink, on_error=failed.append, batch=2, patience=timedelta(seconds=10), clock=clock
    ) as enqueuer:
        await enqueuer.put("a", Options(payload=b"kept"))
        await enqueuer.put("b")
        await pass_time(clock, 12)
        assert failures(failed) == [("a", "StoreUnavailableError"), ("b", "StoreUnavailableError")]
        assert failed[0].options.payload == b"kept"
        assert len(sink.batches) > 3


@pytest.mark.parametrize("wholly", [True, False], ids=["the whole batch fails", "the sink says which"])
async def test_a_key_that_is_refused_takes_no_other_with_it(wholly: bool) -> None:
    sink, failed = Refusing("bad", wholly=wholly), list[FailedKey]()
    async with BackgroundEnqueuer(sink, on_error=failed.append, batch=3) as enqueuer:
        for key in ("a", "bad", "c"):
            await enqueuer.put(key)
    assert (sorted(sink.stored), failures(failed)) == (["a", "c"], [("bad", "InvalidOptionsError")])


async def test_only_what_was_not_stored_is_sent_again() -> None:
    sink, clock = Refusing(wholly=False), FakeClock()
    sink.passing = ["b"]
    async with BackgroundEnqueuer(sink, batch=3, clock=clock) as enqueuer:
        for key in "abc":
            await enqueuer.put(key)
        await pass_time(clock, 2)
        assert [[key for key, _ in batch] for batch in sink.batches] == [["a", "b", "c"], ["b"]]


async def test_a_store_that_needs_an_operator_is_not_asked_again_for_every_key() -> None:
    sink, failed = Sink(), list[FailedKey]()
    sink.fail = [StoreUnusableError("no")]
    async with BackgroundEnqueuer(sink, on_error=failed.append, batch=3) as enqueuer:
        for key in "abc":
            await enqueuer.put(key)
    assert (sink.sizes, [one.key for one in failed]) == ([3], ["a", "b", "c"])


async def test_leaving_sends_what_is_left() -> None:
    sink = Sink()
    async with BackgroundEnqueuer(sink, batch=4, linger=timedelta(days=1)) as enqueuer:
        for number in range(10):
            await enqueuer.put(str(number))
    assert (len(sink.stored), enqueuer.unsent) == (10, [])


async def test_failures_at_the_end_are_reported_too() -> None:
    sink, failed = Sink(), list[FailedKey]()
    sink.fail = [StoreUnavailableError()]
    async with BackgroundEnqueuer(sink, on_error=failed.append, patience=timedelta(0)) as enqueuer:
        await enqueuer.put("a")
    assert failures(failed) == [("a", "StoreUnavailableError")]


async def test_leaving_ends_although_the_store_never_answers() -> None:
    sink, clock, failed = Sink(), FakeClock(), list[FailedKey]()
    enqueuer = BackgroundEnqueuer(sink, on_error=failed.append, batch=1, in_flight=1, clock=clock)
    async with enqueuer:
        sink.gate.clear()
        for key in ("stuck", "waits", "stuck"):
            await enqueuer.put(key)
        await settle_down()
        closing = asyncio.create_task(enqueuer.close())
        await pass_time(clock, 21)
        unsent = await closing
    assert sorted(one.key for one in unsent) == ["stuck", "stuck", "waits"]
    assert failures(unsent) == failures(failed)
    assert enqueuer.metrics.buffered == 0


async def test_what_was_given_up_in_a_batch_that_is_cut_short_is_not_forgotten() -> None:
    sink, clock, failed = Refusing("bad", wholly=False), FakeClock(), list[FailedKey]()
    sink.passing = ["down"] * 100
    async with BackgroundEnqueuer(
        sink, on_error=failed.append, batch=3, patience=timedelta(days=1), drain_timeout=timedelta(0), clock=clock
    ) as enqueuer:
        for key in ("good", "bad", "down"):
            sink.passing = ["down"]
            await enqueuer.put(key)
        await settle_down()
    assert sorted(failures(failed)) == [("bad", "InvalidOptionsError"), ("down", "StoreUnavailableError")]
    assert (enqueuer.metrics.sent, enqueuer.metrics.failed) == (1, 2)


async def test_without_on_error_failures_are_logged_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    sink = Refusing("bad")
    with caplog.at_level(logging.ERROR), pytest.raises(KeysNotSentError) as raised:
        async with BackgroundEnqueuer(sink) as enqueuer:
            await enqueuer.put("bad")
    assert raised.value.failed == 1
    assert "key 'bad' could not be enqueued" in caplog.text


async def test_an_on_error_that_raises_does_not_keep_the_others_from_being_reported() -> None:
    sink, told = Refusing("a", "b"), list[str]()

    async def tell(failed: FailedKey) -> None:
        told.append(failed.key)
        raise ValueError(failed.key)

    async with BackgroundEnqueuer(sink, on_error=tell) as enqueuer:
        await enqueuer.put("a")
        await enqueuer.put("b")
    assert told == ["a", "b"]


async def test_closing_twice_is_harmless_and_tells_the_same() -> None:
    sink, failed = Refusing("bad"), list[FailedKey]()
    async with BackgroundEnqueuer(sink, on_error=failed.append) as enqueuer:
        await enqueuer.put("bad")
        first, second = await asyncio.gather(enqueuer.close(), enqueuer.close())
        assert (first, second, await enqueuer.close()) == ([], [], [])
    assert len(failed) == 1


async def test_put_after_close_raises_and_a_put_that_waited_is_not_taken() -> None:
    sink = Sink()
    async with BackgroundEnqueuer(sink, buffer=1, batch=1, in_flight=1) as enqueuer:
        sink.gate.clear()
        await enqueuer.put("a")
        await enqueuer.put("b")
        waiting = asyncio.create_task(enqueuer.put("c"))
        await settle_down()
        closing = asyncio.create_task(enqueuer.close())
        with pytest.raises(QueueClosedError):
            await waiting
        sink.gate.set()
        await closing
        with pytest.raises(QueueClosedError):
            await enqueuer.put("d")
        with pytest.raises(QueueClosedError):
            enqueuer.put_threadsafe("d")
    assert sink.stored == ["a", "b"]


async def test_the_bodys_own_error_comes_through_once_all_is_sent() -> None:
    sink = Sink()

    async def produce() -> None:
        async with BackgroundEnqueuer(sink) as enqueuer:
            await enqueuer.put("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await produce()
    assert sink.stored == ["a"]


async def test_a_second_block_is_refused() -> None:
    enqueuer = BackgroundEnqueuer(Sink())
    async with enqueuer:
        pass
    with pytest.raises(QueueClosedError):
        await enqueuer.__aenter__()


async def test_every_put_is_counted_until_it_is_stored_merged_or_failed() -> None:
    sink, clock = Refusing("bad"), FakeClock()
    async with BackgroundEnqueuer(sink, on_error=print, batch=10, clock=clock) as enqueuer:
        for key in ("a", "a", "bad", "b"):
            await enqueuer.put(key)
        before = enqueuer.metrics.buffered
    values = {name.removeprefix("workqueue_enqueuer_"): value for name, _, value in enqueuer.metrics.samples()}
    assert before == 3
    assert values == {"put_total": 4, "merged_total": 1, "sent_total": 2, "failed_total": 1, "buffered_keys": 0}
