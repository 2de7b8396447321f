"""Callers who send half of a request, nonsense, too much or nothing: refused soon, and without a line in the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.dispatching import opened
from tests.support.grpc import channel_to, on_loop, refused, stub_of
from workqueue.access.security import ServerSecurity
from workqueue.access.tokens import StaticTokens
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.rpc.grpc_limits import GrpcLimits
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.receiver import Receiver
from workqueue.rpc.server import GrpcServer, Listen
from workqueue.rpc.wire import SERVICE

PROCESS = f"/{SERVICE}/Process"
CHECK = "/grpc.health.v1.Health/Check"
METHODS = [
    PROCESS,
    *(
        f"/grpc.health.v1.Health/{name}"
        for name in ("Check", "List", "Watch")
        if hasattr(health_pb2_grpc.HealthServicer, name)
    ),
]
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SOON = timedelta(milliseconds=300)
_DATA, _HEADERS, _RST, _SETTINGS = 0, 1, 3, 4


class Peer:
    """An HTTP/2 peer that writes frames of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def frame(self, kind: int, flags: int, stream: int, body: bytes = b"") -> None:
        self._writer.write(struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body)

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def greet(self) -> None:
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.frame(_SETTINGS, 0, 0)

    def begin(self, stream: int, path: str) -> None:
        """Headers of a call, and the first bytes of a message that does not come."""
        head = {
            ":method": "POST", ":scheme": "http", ":path": path, ":authority": "x",
            "content-type": "application/grpc", "te": "trailers",
        }  # fmt: skip
        self.frame(_HEADERS, 4, stream, b"".join(b"\0" + _text(name) + _text(value) for name, value in head.items()))
        self.frame(_DATA, 0, stream, b"\0" + struct.pack(">I", 1000) + b"half")

    async def ended(self, streams: set[int]) -> None:
        """Return once the server has ended these streams."""
        while streams:
            size, kind, flags, stream = struct.unpack(">IBBI", b"\0" + await self._reader.readexactly(9))
            await self._reader.readexactly(size)
            if kind == _RST or (kind == _HEADERS and flags & 1):
                streams.discard(stream & 0x7FFFFFFF)

    async def settled(self) -> None:
        """Acknowledge the settings of the server, and return once it has acknowledged ours."""
        self.frame(_SETTINGS, 1, 0)
        while True:
            size, kind, flags, _ = struct.unpack(">IBBI", b"\0" + await self._reader.readexactly(9))
            await self._reader.readexactly(size)
            if kind == _SETTINGS and flags & 1:
                return

    async def hung_up(self) -> None:
        """Return once the server has closed the connection."""
        with contextlib.suppress(ConnectionError):
            await self._reader.read()


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


@asynccontextmanager
async def peer(server: GrpcServer) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def receiver(limits: GrpcLimits, security: ServerSecurity | None = None, queue: Any = None) -> GrpcServer:
    return GrpcServer(
        Receiver(queue or opened(MemoryQueue())), Listen(port=0, security=security or ServerSecurity(), limits=limits)
    )


LOCKED = ServerSecurity(tokens=StaticTokens(["secret"]))


@on_loop
async def test_half_a_request_without_a_token_is_answered_at_once() -> None:
    async with receiver(GrpcLimits(), LOCKED) as server, peer(server) as it:
        it.greet()
        for stream in (1, 3, 5):
            it.begin(stream, PROCESS)

        await it.ended({1, 3, 5})


@pytest.mark.parametrize("path", [PROCESS, CHECK], ids=["process", "health"])
@on_loop
async def test_half_a_request_is_waited_for_only_so_long(path: str) -> None:
    async with receiver(GrpcLimits(message_time=SOON)) as server, peer(server) as it:
        it.greet()
        it.begin(1, path)

        await it.ended({1})


@pytest.mark.parametrize("greeting", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], ids=["nothing", "half of a greeting"])
@on_loop
async def test_a_connection_that_does_not_greet_is_closed(greeting: bytes) -> None:
    async with receiver(GrpcLimits(handshake_time=SOON)) as server, peer(server) as it:
        it.send(greeting)

        await it.hung_up()


@pytest.mark.parametrize("headers", [b"", b"\0\7:method\4POST"], ids=["no call", "half of a call's headers"])
async def test_a_connection_without_calls_is_closed(headers: bytes) -> None:
    async with receiver(GrpcLimits(idle_time=timedelta(seconds=1))) as server, peer(server) as it:
        it.greet()
        it.frame(_SETTINGS, 1, 0)
        if headers:
            it.frame(_HEADERS, 0, 1, headers)

        await it.hung_up()


async def test_streams_beyond_the_limit_are_unavailable() -> None:
    async with receiver(GrpcLimits(calls=1)) as server, stub_of(server) as stub:
        many: Any = stub.ProcessMany
        first = many()
        await first.read()
        second = many()

        assert await second.code() is grpc.StatusCode.UNAVAILABLE
        assert "too many calls" in await second.details()
        first.cancel()


def test_whoever_greets_and_is_silent_does_not_keep_others_out_for_long() -> None:
    assert GrpcLimits().idle_time <= timedelta(seconds=20)


@on_loop
async def test_calls_beyond_the_limit_are_unavailable_and_probes_are_answered() -> None:
    entered, proceed = asyncio.Event(), asyncio.Event()

    class SlowQueue(MemoryQueue):
        async def queue(self, *args: Any) -> None:
            entered.set()
            await proceed.wait()

    async with receiver(GrpcLimits(calls=1), queue=opened(SlowQueue())) as server, channel_to(server) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        async with stub_of(server) as stub:
            first = asyncio.ensure_future(stub.Process(pb.ProcessRequest(key="a")))
            await entered.wait()

            assert (await refused(stub.Process(pb.ProcessRequest(key="b")))).code() is grpc.StatusCode.UNAVAILABLE
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
            proceed.set()
            await first
            await stub.Process(pb.ProcessRequest(key="c"))


@on_loop
async def test_more_calls_at_once_than_a_connection_takes_wait_for_their_turn() -> None:
    queue = opened(MemoryQueue())
    async with receiver(GrpcLimits(streams=5), queue=queue) as server, stub_of(server) as stub:
        await asyncio.gather(*(stub.Process(pb.ProcessRequest(key=f"k{number}")) for number in range(200)))

    assert (await queue.counts()).queued == 200


@on_loop
async def test_a_peer_that_opens_more_calls_than_it_may_has_them_reset() -> None:
    async with receiver(GrpcLimits(streams=5)) as server, peer(server) as it:
        it.greet()
        await it.settled()
        for stream in range(1, 41, 2):
            it.begin(stream, PROCESS)

        await it.ended(set(range(11, 41, 2)))


@on_loop
async def test_connections_beyond_the_limit_are_refused_and_room_comes_back() -> None:
    limits = GrpcLimits(connections=2, handshake_time=SOON)
    async with receiver(limits) as server, peer(server) as first, peer(server) as second, peer(server) as third:
        await third.hung_up()
        await first.hung_up()
        await second.hung_up()
        async with stub_of(server) as stub:
            await stub.Process(pb.ProcessRequest(key="k"), wait_for_ready=True)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.rpartition("/")[2])
@on_loop
async def test_what_cannot_be_read_is_refused_without_a_line_in_the_log(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with receiver(GrpcLimits()) as server, channel_to(server) as channel:
            error = await refused(channel.unary_unary(method)(b"\xff" * 10))

    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "the request cannot be read")
    assert caplog.records == []


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.rpartition("/")[2])
@on_loop
async def test_more_than_the_limit_is_refused_without_a_line_in_the_log(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with receiver(GrpcLimits(message_bytes=1000)) as server, channel_to(server) as channel:
            error = await refused(channel.unary_unary(method)(b"x" * 2000))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caplog.records == []


@pytest.mark.parametrize(
    ("size", "code"), [(10, grpc.StatusCode.INVALID_ARGUMENT), (2000, grpc.StatusCode.RESOURCE_EXHAUSTED)]
)
@on_loop
async def test_what_reflection_cannot_read_is_refused_without_a_line_in_the_log(
    size: int, code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with receiver(GrpcLimits(message_bytes=1000)) as server, channel_to(server) as channel:
            call = channel.stream_stream(REFLECTION)
            error = await refused(anext(aiter(call(iter([b"\xff" * size])))))

    assert error.code() is code
    assert caplog.records == []


@on_loop
async def test_a_call_without_any_request_is_refused() -> None:
    async with receiver(GrpcLimits()) as server, channel_to(server) as channel:
        error = await refused(channel.stream_unary(PROCESS)(iter([])))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("answer", [None, RuntimeError("at 10.0.0.7")], ids=["no message", "an error"])
async def test_a_bug_of_a_servicer_is_one_line_in_the_log_and_shows_nothing_of_itself(
    answer: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Receiver):
        async def Process(self, request: pb.ProcessRequest, context: Any) -> Any:  # noqa: N802
            if answer is not None:
                raise answer

    async with GrpcServer(Broken(opened(MemoryQueue())), Listen(port=0)) as server, stub_of(server) as stub:
        error = await refused(stub.Process(pb.ProcessRequest(key="k")))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "the server failed unexpectedly; its log says how"
    assert [each.name for each in caplog.records if each.levelname == "ERROR"] == ["workqueue.rpc.entrance"]


@on_loop
async def test_two_authorization_headers_are_refused_even_if_one_is_right() -> None:
    async with receiver(GrpcLimits(), LOCKED) as server, stub_of(server) as stub:
        both = (("authorization", "Bearer wrong"), ("authorization", "Bearer secret"))
        error = await refused(stub.Process(pb.ProcessRequest(key="k"), metadata=both))

    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "more than one" in (error.details() or "")
