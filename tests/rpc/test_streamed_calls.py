"""When calls share streams: many at once do, where the other side has streams; what they end with is the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from dispatcher import Dispatcher, DispatcherSettings, service_callback
from tests.support.dispatching import running
from tests.support.grpc import FixedToken, channel_to, client_of, refused
from tests.support.targets import done, reconciler
from workqueue.access.security import ClientSecurity, ServerSecurity
from workqueue.access.tokens import StaticTokens
from workqueue.attempt import Attempt
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.optional import Counts
from workqueue.options import Options
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.receiver import receive
from workqueue.rpc.reconciler import serve
from workqueue.rpc.served_stream import ServedStreams
from workqueue.rpc.sharding import route
from workqueue.rpc.streamed_calls import StreamedCalls
from workqueue.rpc.stub import stub_on


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[ServedStreams]:
    """Who served a stream, once for each that began."""
    begun: list[ServedStreams] = []
    serve_stream = ServedStreams.serve

    def noted(self: ServedStreams, requests: Any, context: Any) -> AsyncIterator[Any]:
        begun.append(self)
        return serve_stream(self, requests, context)

    monkeypatch.setattr(ServedStreams, "serve", noted)
    return begun


async def nothing(key: str, attempt: Attempt) -> None:
    """Done at once."""


async def crowd(call: Callable[[str], Awaitable[object]], enough: Callable[[], object]) -> None:
    """Make calls, many at once, until there are enough."""
    while not enough():
        await asyncio.gather(*[call(f"key-{number}") for number in range(64)])


async def test_calls_that_are_many_share_streams(streams: list[ServedStreams]) -> None:
    async with serve(nothing, port=0) as server, channel_to(server) as channel:
        calls = StreamedCalls(stub_on(channel))

        await crowd(lambda key: calls.process(pb.ProcessRequest(key=key), 30), lambda: streams)
        await calls.close()


async def test_calls_that_are_few_go_by_themselves(streams: list[ServedStreams]) -> None:
    async with serve(nothing, port=0) as server, channel_to(server) as channel:
        calls = StreamedCalls(stub_on(channel))

        for _ in range(20):
            await asyncio.gather(*[calls.process(pb.ProcessRequest(key=f"{it}"), 30) for it in range(4)])

    assert not streams


async def test_a_peer_that_has_no_streams_is_asked_once_and_called_call_by_call() -> None:
    async with reconciler(done) as (server, _), channel_to(server) as channel:  # type: ignore[arg-type]
        calls, peer = StreamedCalls(stub_on(channel)), server.reconciler

        await crowd(lambda key: calls.process(pb.ProcessRequest(key=key), 30), lambda: peer.streams_refused)
        await asyncio.gather(*[calls.process(pb.ProcessRequest(key="k"), 30) for _ in range(300)])

    assert peer.streams_refused == 1
    assert len(peer.requests) > 300


async def test_a_large_call_goes_by_itself_beside_a_stream(streams: list[ServedStreams]) -> None:
    payloads: list[int] = []

    async def callback(key: str, attempt: Attempt) -> None:
        payloads.append(len(attempt.payload or b""))

    async with serve(callback, port=0) as server, channel_to(server) as channel:
        calls = StreamedCalls(stub_on(channel))
        await crowd(lambda key: calls.process(pb.ProcessRequest(key=key), 30), lambda: streams)

        await calls.process(pb.ProcessRequest(key="large", payload=b"x" * 3_000_000), 30)
        await calls.close()

    assert max(payloads) == 3_000_000


async def test_calls_under_way_fail_when_their_streams_are_closed(streams: list[ServedStreams]) -> None:
    async def for_ever(key: str, attempt: Attempt) -> None:
        if key == "for ever":
            await asyncio.Event().wait()

    async with serve(for_ever, port=0) as server, channel_to(server) as channel:
        calls = StreamedCalls(stub_on(channel))
        await crowd(lambda key: calls.process(pb.ProcessRequest(key=key), 30), lambda: calls._streams)
        call = asyncio.create_task(calls.process(pb.ProcessRequest(key="for ever"), 30))
        await calls.process(pb.ProcessRequest(key="k"), 30)

        await calls.close()

        assert (await refused(call)).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_dispatcher_calls_a_reconciler_in_streams(streams: list[ServedStreams]) -> None:
    async with (
        serve(nothing, port=0) as server,
        MemoryQueue() as queue,
        service_callback(f"grpc://127.0.0.1:{server.port}") as callback,
        running(Dispatcher(queue, callback, DispatcherSettings(concurrency=100))),
    ):
        while not streams:
            await queue.queue_many([(f"key-{number}", Options()) for number in range(500)])
            await emptied(queue)


async def emptied(queue: MemoryQueue) -> None:
    async with asyncio.timeout(30):
        while await queue.counts() != Counts():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.002)


async def test_a_producer_enqueues_many_keys_in_streams(streams: list[ServedStreams]) -> None:
    async with MemoryQueue() as queue, receive(queue, port=0) as server, client_of(server) as client:
        await crowd(lambda key: client.queue(key, Options(priority=2)), lambda: streams)

        assert (await queue.counts()).queued == 64
        assert (await client.get("key-7")).priority == 2


async def test_a_hyperqueue_passes_streams_on(streams: list[ServedStreams]) -> None:
    async with (
        MemoryQueue() as queue,
        receive(queue, port=0) as shard,
        route([f"grpc://127.0.0.1:{shard.port}"], port=0) as router,
        client_of(router) as client,
    ):
        await crowd(client.queue, lambda: len(set(streams)) == 2)  # its own, and the shard's

        assert (await queue.counts()).queued == 64


async def test_a_stream_is_asked_for_with_the_token_of_its_client(streams: list[ServedStreams]) -> None:
    accepted, shown = ServerSecurity(tokens=StaticTokens(["secret"])), ClientSecurity(token=FixedToken("secret"))
    async with (
        MemoryQueue() as queue,
        receive(queue, port=0, security=accepted) as server,
        client_of(server, security=shown) as client,
    ):
        await crowd(client.queue, lambda: streams)
