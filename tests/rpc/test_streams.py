"""Many calls in one stream: each ends as a call of its own would, and the stream itself begins, breaks and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest

from tests.support.grpc import channel_to, refused, stub_of, trailers_of
from workqueue import InfrastructureError, NonRetriableError, QueueKey, QueueKeys, RequeueAfter, RequeueNotBefore
from workqueue.access.security import ServerSecurity
from workqueue.access.tokens import StaticTokens
from workqueue.attempt import Attempt
from workqueue.errors import ExpiredError, RetryAfterError
from workqueue.rpc import served_stream
from workqueue.rpc.call_stream import CallStream
from workqueue.rpc.drain import DrainTimes
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.reconciler import serve
from workqueue.rpc.server import GrpcServer
from workqueue.rpc.stub import stub_on

MINUTE = timedelta(minutes=1)
AT_ONCE = DrainTimes(timedelta(0), MINUTE, timedelta(0))


@asynccontextmanager
async def stream_to(server: GrpcServer) -> AsyncIterator[CallStream]:
    async with channel_to(server) as channel:
        stream = CallStream(stub_on(channel).ProcessMany)
        assert await stream.open()
        yield stream
        await stream.abort()


def begun(stub: Any) -> Any:
    """A stream whose messages the test writes and reads itself; the stub's types do not know of it."""
    return stub.ProcessMany()


def of(key: str) -> pb.ProcessRequest:
    return pb.ProcessRequest(key=key)


class Gate:
    """A callback that waits for `open` to be set, except for the key `quick`; it notes which keys are in it."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside: set[str] = set()
        self.came = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, key: str, attempt: Attempt) -> None:
        if key == "quick":
            return
        self.inside.add(key)
        self.came.set()
        try:
            await self.open.wait()
        finally:
            self.inside.remove(key)
            self.left.set()


OUTCOMES = [
    pytest.param(None, id="done"),
    pytest.param(RequeueAfter(MINUTE), id="again"),
    pytest.param(RequeueNotBefore(MINUTE), id="a floor"),
    pytest.param(QueueKeys(QueueKey("child", 3, MINUTE, b"x")), id="further keys"),
    pytest.param(ValueError("no"), id="failed"),
    pytest.param(NonRetriableError("Gone", "gone"), id="final"),
    pytest.param(ExpiredError("late", "late"), id="expired"),
    pytest.param(InfrastructureError("down"), id="infrastructure"),
    pytest.param(RetryAfterError(MINUTE, "busy"), id="retry after"),
    pytest.param(ValueError("é" * 9000), id="a long text"),
]


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_a_call_in_a_stream_ends_as_one_by_itself(outcome: object) -> None:
    async def callback(key: str, attempt: Attempt) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async with serve(callback, port=0) as server, stub_of(server) as stub, stream_to(server) as stream:
        alone = await ending(stub.Process(of("k"), timeout=30))
        streamed = await ending(stream.process(of("k"), 30))

    assert streamed == alone


async def ending(call: Awaitable[pb.ProcessResponse]) -> object:
    """The answer of a call, or the whole status that it ended with."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details(), trailers_of(error)


async def test_answers_come_in_any_order_and_each_to_its_call() -> None:
    gate = Gate()
    async with serve(gate, port=0) as server, stream_to(server) as stream:
        slow = asyncio.create_task(stream.process(of("slow"), 30))
        await gate.came.wait()

        assert await stream.process(of("quick"), 30) == pb.ProcessResponse()
        assert not slow.done()
        gate.open.set()
        assert await slow == pb.ProcessResponse()


async def test_the_attempt_reads_its_own_request_and_its_own_deadline() -> None:
    seen: list[tuple[str, int, bytes | None, bool]] = []

    async def callback(key: str, attempt: Attempt) -> None:
        seen.append((key, attempt.attempts, attempt.payload, attempt.remaining() <= timedelta(seconds=40)))

    async with serve(callback, port=0) as server, stream_to(server) as stream:
        await stream.process(pb.ProcessRequest(key="a", attempts=2, payload=b"x"), 40)
        await stream.process(pb.ProcessRequest(key="b"), 400)

    assert seen == [("a", 2, b"x", True), ("b", 0, None, False)]


async def test_one_call_is_cancelled_without_the_others() -> None:
    gate = Gate()
    async with serve(gate, port=0) as server, stream_to(server) as stream:
        kept, cancelled = (asyncio.create_task(stream.process(of(key), 30)) for key in ("kept", "cancelled"))
        while len(gate.inside) < 2:
            gate.came.clear()
            await gate.came.wait()

        cancelled.cancel()
        await gate.left.wait()

        assert gate.inside == {"kept"}
        gate.open.set()
        assert await kept == pb.ProcessResponse()


async def test_a_call_that_takes_too_long_ends_at_both_sides() -> None:
    gate = Gate()
    async with serve(gate, port=0) as server, stream_to(server) as stream:
        error = await refused(stream.process(of("slow"), 0.2))
        await gate.left.wait()
        still_there = await stream.process(of("quick"), 30)

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert still_there == pb.ProcessResponse()


async def test_calls_of_a_stream_that_breaks_are_unavailable() -> None:
    gate = Gate()
    async with serve(gate, port=0) as server, stream_to(server) as stream:
        call = asyncio.create_task(stream.process(of("k"), 30))
        await gate.came.wait()
        await server._server.stop(None)

        error = await refused(call)

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert stream.is_closing


async def test_a_stream_with_more_calls_than_agreed_ends() -> None:
    gate = Gate()
    async with serve(gate, port=0) as server, stub_of(server) as stub:
        call = begun(stub)
        window = (await call.read()).window
        message = pb.ProcessManyRequest()
        for number in range(window + 1):
            message.calls.add(id=number).request.key = f"k{number}"
        await call.write(message)

        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"more than {window} calls" in await call.details()


async def test_a_draining_server_answers_what_is_sent_and_takes_no_further_stream() -> None:
    gate = Gate()
    async with serve(gate, port=0, times=AT_ONCE) as server, stream_to(server) as stream, stub_of(server) as stub:
        before = asyncio.create_task(stream.process(of("before"), 30))
        await gate.came.wait()
        await server._drain.drain()  # type: ignore[union-attr]

        assert await before == pb.ProcessResponse(requeue_after_seconds=60)
        assert await stub.Process(of("after")) == pb.ProcessResponse(requeue_after_seconds=60)
        assert await begun(stub).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_that_is_closing_cuts_no_call_short() -> None:
    gate = Gate()
    async with serve(gate, port=0) as server, stream_to(server) as stream:
        call = asyncio.create_task(stream.process(of("k"), 30))
        await gate.came.wait()

        stream.close()
        gate.open.set()

        assert await call == pb.ProcessResponse()
        assert await stream._call.code() is grpc.StatusCode.OK


async def test_a_stream_without_calls_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_stream, "_IDLE_SECONDS", 0.05)
    async with serve(Gate(), port=0) as server, stream_to(server) as stream:
        assert await stream._call.code() is grpc.StatusCode.OK
        assert stream.is_closing


async def test_who_ignores_that_a_stream_closes_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_stream, "_IDLE_SECONDS", 0.05)
    async with serve(Gate(), port=0) as server, stub_of(server) as stub:
        call = begun(stub)

        said = [message async for message in call]

    assert [(message.window > 0, message.closing) for message in said] == [(True, False), (False, True)]


async def test_more_than_fits_into_one_message_goes_in_several() -> None:
    child = QueueKey("child", payload=b"x" * 200_000)

    async def callback(key: str, attempt: Attempt) -> QueueKeys:
        return QueueKeys(child, child)

    request = pb.ProcessRequest(key="k", payload=b"x" * 200_000)
    async with serve(callback, port=0) as server, stream_to(server) as stream:
        answers = await asyncio.gather(*[stream.process(request, 30) for _ in range(40)])

    assert [len(answer.queue_keys) for answer in answers] == [2] * 40


async def test_a_bug_of_the_server_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(Gate(), port=0) as server:
        servicer: Any = server._servicer
        servicer._streams._handle = raising(RuntimeError("secret"))
        async with stream_to(server) as stream:
            error = await refused(stream.process(of("k"), 30))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "the server failed unexpectedly; its log says how"
    assert "a bug" in caplog.text


def raising(error: Exception) -> Callable[..., Awaitable[None]]:
    async def fail(*_: object) -> None:
        raise error

    return fail


async def test_a_stream_needs_a_token_where_calls_do() -> None:
    security = ServerSecurity(tokens=StaticTokens(["secret"]))
    async with serve(Gate(), port=0, security=security) as server, stub_of(server) as stub:
        assert await begun(stub).code() is grpc.StatusCode.UNAUTHENTICATED
