"""Enqueues of one moment go to the store in one call, and each caller hears of its own key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from tests.support.dispatching import memory, settle_down, state
from workqueue import KeyStatus, Options
from workqueue.errors import InvalidOptionsError, PartlyStoredError, PayloadTooLargeError, StoreUnavailableError
from workqueue.options import FailedKey
from workqueue.sources.schedules.gathered import Gathered
from workqueue.testing import FlakyQueue

PLAIN = Options()
TOO_LARGE = Options(payload=bytes(1 << 20))


class OneByOne:
    """A sink without `queue_many`."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def queue(self, key: str, options: Options = PLAIN) -> None:
        self.keys.append(key)


class Partly(OneByOne):
    """A sink that takes some of many keys, but not `b`."""

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        failed = [FailedKey(key, options, InvalidOptionsError("no")) for key, options in items if key == "b"]
        raise PartlyStoredError(failed)


async def enqueued(gathered: Gathered, items: dict[str, Options]) -> list[str]:
    """What each key was answered, when all are enqueued at once."""
    calls = [gathered.queue(key, options) for key, options in items.items()]
    return [type(answer).__name__ for answer in await asyncio.gather(*calls, return_exceptions=True)]


async def test_keys_of_one_moment_are_stored_by_one_call() -> None:
    queue = FlakyQueue(memory())

    answers = await enqueued(Gathered(queue), {"a": Options(priority=3), "b": PLAIN, "c": PLAIN})

    assert answers == ["NoneType"] * 3
    assert queue.calls == [("queue_many", None)]
    assert (await state(queue, "a")).priority == 3


async def test_a_key_that_comes_alone_is_stored_alone_and_at_once() -> None:
    queue = FlakyQueue(memory())

    await Gathered(queue).queue("a", PLAIN)

    assert queue.calls == [("queue", "a")]


async def test_a_sink_that_takes_one_key_a_call_gets_them_so() -> None:
    sink = OneByOne()

    await enqueued(Gathered(sink), {"a": PLAIN, "b": PLAIN})

    assert sink.keys == ["a", "b"]


async def test_a_key_that_is_refused_fails_alone() -> None:
    answers = await enqueued(Gathered(memory()), {"a": PLAIN, "b": TOO_LARGE, "c": PLAIN})

    assert answers == ["NoneType", PayloadTooLargeError.__name__, "NoneType"]


async def test_a_sink_that_takes_some_keys_fails_the_others() -> None:
    answers = await enqueued(Gathered(Partly()), {"a": PLAIN, "b": PLAIN})

    assert answers == ["NoneType", InvalidOptionsError.__name__]


async def test_a_store_that_is_down_fails_each_and_is_asked_once() -> None:
    queue = FlakyQueue(memory())
    queue.fail("queue_many")

    answers = await enqueued(Gathered(queue), {"a": PLAIN, "b": PLAIN})

    assert answers == [StoreUnavailableError.__name__] * 2
    assert queue.calls == [("queue_many", None)]


async def test_who_is_cancelled_takes_nobody_along() -> None:
    queue = memory()
    gathered = Gathered(queue)
    calls = [asyncio.ensure_future(gathered.queue(key, PLAIN)) for key in ("a", "b")]
    await asyncio.sleep(0)

    calls[0].cancel()
    await settle_down()

    assert calls[1].done()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    assert (await state(queue, "b")).status is KeyStatus.QUEUED
