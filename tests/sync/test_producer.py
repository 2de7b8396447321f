"""`open_queue("grpc://…")`: a receiver where a producer takes a queue."""

from __future__ import annotations

import asyncio

import pytest

from dispatcher import Dispatcher
from workqueue import KeyNotFoundError, KeyStatus, Options, open_queue
from workqueue.errors import InvalidSettingError, UnsupportedError
from workqueue.rpc import receive
from workqueue.sync import open_queue as open_sync


async def test_a_receivers_url_opens_a_producer() -> None:
    async with open_queue("memory://") as stored, receive(stored) as receiver:
        async with open_queue(f"grpc://127.0.0.1:{receiver.port}") as queue:
            await queue.queue("a", Options(priority=2))
            await queue.queue_many([("b", Options())])

            assert (await queue.get("a")).status is KeyStatus.QUEUED
        assert (await stored.counts()).queued == 2


async def test_synchronous_code_produces_through_a_receiver_too() -> None:
    def produce(port: int) -> None:
        with open_sync(f"grpc://127.0.0.1:{port}") as queue:
            queue.queue("a")
            assert queue.get("a").status is KeyStatus.QUEUED
            with pytest.raises(KeyNotFoundError):
                queue.get("b")
            with pytest.raises(UnsupportedError, match="counts takes the queue's own URL"):
                queue.counts()

    async with open_queue("memory://") as stored, receive(stored) as receiver:
        await asyncio.to_thread(produce, receiver.port)


def test_a_dispatcher_refuses_a_producer_before_it_begins() -> None:
    with pytest.raises(InvalidSettingError, match="the URL of a store, not a Client"):
        Dispatcher(open_queue("grpc://127.0.0.1:1"), print)
