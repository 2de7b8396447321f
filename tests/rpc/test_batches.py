"""Many keys in one call: what is stored, whose fault it is when something is not, and who takes no batches."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from examples.three_verbs import Table, ThreeVerbs
from tests.support.dispatching import opened
from tests.support.grpc import ONCE, QUICK, client_of, refused, stub_of
from tests.support.targets import done, reconciler
from workqueue import InvalidOptionsError, Options, StoreUnavailableError
from workqueue.access.security import ServerSecurity
from workqueue.access.tokens import StaticTokens
from workqueue.attempt import Attempt
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import QueueClosedError, StoreUnusableError
from workqueue.rpc.client import Retries, connect
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.receiver import receive
from workqueue.rpc.reconciler import serve
from workqueue.rpc.sharding import by_fnv, route
from workqueue.testing import FakeClock, FlakyQueue

LARGE = Options(payload=b"x" * 200_000)


def items(count: int, options: Options = Options()) -> list[tuple[str, Options]]:
    return [(f"key-{number}", options) for number in range(count)]


def batch_of(*keys: str) -> pb.QueueManyRequest:
    return pb.QueueManyRequest(requests=[pb.ProcessRequest(key=key) for key in keys])


def flaky(queue: MemoryQueue | None = None) -> FlakyQueue:
    return FlakyQueue(opened(queue or MemoryQueue()))


async def test_a_thousand_keys_are_four_calls() -> None:
    queue = flaky()
    async with receive(queue, port=0) as server, client_of(server) as client:
        await client.queue_many(items(1000))

    assert (queue.asked("queue_many"), queue.asked("queue")) == (4, 0)
    assert (await queue.counts()).queued == 1000


async def test_each_key_of_a_batch_arrives_with_everything_it_says() -> None:
    queue = opened(MemoryQueue(clock=FakeClock(1_750_000_000_000_000)))
    later = Options(not_before=datetime.now(UTC) + timedelta(minutes=10))
    async with receive(queue, port=0) as server, client_of(server) as client:
        await client.queue_many([("é", Options(priority=7, payload=b"\x00", meta={"a": "b"})), ("later", later)])

    state = await queue.get("é")
    assert (state.priority, state.payload, dict(state.meta)) == (7, b"\x00", {"a": "b"})
    assert (await queue.get("later")).not_before == datetime.fromtimestamp(1_750_000_600, UTC)


async def test_large_payloads_go_in_as_many_calls_as_they_need() -> None:
    queue = flaky()
    async with receive(queue, port=0) as server, client_of(server) as client:
        await client.queue_many(items(20, LARGE))

    assert (queue.asked("queue_many"), queue.asked("queue")) == (10, 0)


async def test_keys_for_a_receiver_without_batches_go_one_by_one_and_it_is_not_asked_again() -> None:
    async with reconciler(done) as (server, _), connect(f"grpc://127.0.0.1:{server.port}") as client:
        await client.queue_many(items(1100))
        asked = server.reconciler.batches_refused
        await client.queue_many(items(1100))

    assert 1 <= asked <= 4
    assert server.reconciler.batches_refused == asked
    assert sorted(request.key for request in server.reconciler.requests) == sorted([key for key, _ in items(1100)] * 2)


async def test_a_queue_without_a_bulk_verb_takes_no_batches() -> None:
    table = Table()
    async with ThreeVerbs(table) as queue, receive(queue, port=0) as server, client_of(server) as client:
        await client.queue_many(items(300))

        async with stub_of(server) as stub:
            assert (await refused(stub.QueueMany(batch_of("k")))).code() is grpc.StatusCode.UNIMPLEMENTED
        assert len((await queue.enumerate(1000)).queued) == 300


async def test_a_key_that_the_receiver_refuses_fails_alone() -> None:
    queue = flaky(MemoryQueue(max_payload=10))
    async with receive(queue, port=0) as server, client_of(server) as client:
        with pytest.raises(InvalidOptionsError, match="at most 10"):
            await client.queue_many([*items(30), ("large", Options(payload=b"x" * 11))])

    assert (await queue.counts()).queued == 30


async def test_of_a_batch_with_an_invalid_key_nothing_is_stored() -> None:
    queue = opened(MemoryQueue())
    async with receive(queue, port=0) as server, stub_of(server) as stub:
        error = await refused(stub.QueueMany(batch_of("good", "bad\n")))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await queue.counts()).queued == 0


async def test_a_store_that_fails_for_a_moment_loses_no_key() -> None:
    queue = flaky()
    queue.fail("queue_many", times=2)
    queue.fail("queue_many", after=True)
    queue.fail("queue", times=100)
    async with receive(queue, port=0) as server, client_of(server, retries=QUICK) as client:
        await client.queue_many(items(2000))

    assert (await queue.counts()).queued == 2000


async def test_a_batch_is_tried_once_by_who_has_no_patience() -> None:
    queue = flaky()
    queue.fail("queue_many", StoreUnavailableError("disk full"))
    async with receive(queue, port=0) as server, client_of(server, retries=ONCE) as client:
        with pytest.raises(StoreUnavailableError, match="disk full"):
            await client.queue_many(items(2))

    assert (queue.asked("queue_many"), queue.asked("queue")) == (1, 0)


class HangingQueue(MemoryQueue):
    """It stores single keys, and never has done with a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0
        self.changed = asyncio.Event()

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        self._count(1)
        try:
            await asyncio.Event().wait()
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.inside += change
        self.changed.set()


async def test_batches_that_are_too_slow_for_a_store_are_stored_key_by_key() -> None:
    queue = opened(HangingQueue())
    hasty = Retries(patience=timedelta(seconds=30), attempt=timedelta(seconds=0.5))
    async with receive(queue, port=0) as server, client_of(server, retries=hasty) as client:
        await client.queue_many(items(20))

    assert (await queue.counts()).queued == 20


async def test_a_receiver_whose_store_hangs_says_so_before_the_caller_of_a_batch_gives_up() -> None:
    async with receive(opened(HangingQueue()), port=0) as server, stub_of(server) as stub:
        error = await refused(stub.QueueMany(batch_of("k"), timeout=2))

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert re.fullmatch(r"the store has not answered for [01]\.\d s", error.details() or "")


async def test_a_batch_that_is_cancelled_is_cancelled_at_the_receiver() -> None:
    queue = opened(HangingQueue())
    async with receive(queue, port=0) as server, client_of(server) as client:
        call = asyncio.create_task(client.queue_many(items(2)))
        await queue.changed.wait()
        queue.changed.clear()
        call.cancel()

        await queue.changed.wait()

    assert queue.inside == 0


async def test_a_batch_has_a_limit_of_keys() -> None:
    queue = flaky()
    async with receive(queue, port=0) as server, stub_of(server) as stub:
        await stub.QueueMany(batch_of(*[key for key, _ in items(1000)]))
        error = await refused(stub.QueueMany(batch_of(*[key for key, _ in items(1001)])))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "a batch has at most 1000 keys, this one has 1001"
    assert queue.asked("queue_many") == 1


async def test_a_batch_needs_a_token_where_calls_do() -> None:
    security = ServerSecurity(tokens=StaticTokens(["secret"]))
    async with receive(flaky(), port=0, security=security) as server, client_of(server) as client:
        with pytest.raises(StoreUnusableError, match="does not accept this client"):
            await client.queue_many(items(2))
        async with stub_of(server) as stub:
            assert (await refused(stub.QueueMany(batch_of("k")))).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_reconciler_takes_no_batches_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def nothing(key: str, attempt: Attempt) -> None:
        """Done at once."""

    async with serve(nothing, port=0) as server, stub_of(server) as stub:
        error = await refused(stub.QueueMany(batch_of("k")))

    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not caplog.records


async def test_many_keys_for_a_client_that_is_not_open_are_refused() -> None:
    client = connect("grpc://127.0.0.1:1")
    with pytest.raises(QueueClosedError):
        await client.queue_many(items(2))


async def test_a_hyperqueue_passes_each_shard_its_part_in_one_call() -> None:
    shards = [flaky(), flaky()]
    async with (
        receive(shards[0], port=0) as first,
        receive(shards[1], port=0) as second,
        route([f"grpc://127.0.0.1:{each.port}" for each in (first, second)], port=0) as router,
        client_of(router) as client,
    ):
        await client.queue_many(items(250))

    choose = by_fnv(["shard"] * 2)
    assert [shard.asked("queue_many") for shard in shards] == [1, 1]
    for number, shard in enumerate(shards):
        assert (await shard.counts()).queued == sum(choose(key) == number for key, _ in items(250))


async def test_a_batch_that_fails_at_one_shard_is_stored_at_the_others_and_names_it() -> None:
    down, up = flaky(), flaky()
    down.fail("queue_many", StoreUnavailableError("disk full"))
    async with (
        receive(down, port=0) as first,
        receive(up, port=0) as second,
        route([f"grpc://127.0.0.1:{each.port}" for each in (first, second)], port=0) as router,
        client_of(router) as client,
    ):
        with pytest.raises(StoreUnavailableError, match=f"shard grpc://127.0.0.1:{first.port}: disk full"):
            await client.queue_many(items(100))

    choose = by_fnv(["shard"] * 2)
    assert (await up.counts()).queued == sum(choose(key) == 1 for key, _ in items(100))
    assert (await down.counts()).queued == 0
