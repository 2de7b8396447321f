"""For the gRPC tests: tests that are coroutines, raw stubs, and queues that fail on demand."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec

import grpc
import pytest

from workqueue.access.security import ClientSecurity
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import WorkQueueError
from workqueue.options import Options
from workqueue.rpc.client import Client, Retries, connect
from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceStub
from workqueue.rpc.receiver import receive
from workqueue.rpc.server import GrpcServer
from workqueue.rpc.wire import SERVICE

if TYPE_CHECKING:
    from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceAsyncStub

_P = ParamSpec("_P")

ONCE = Retries(patience=timedelta(0), attempt=timedelta(seconds=10))
QUICK = Retries(
    patience=timedelta(seconds=30), pause=timedelta(milliseconds=1), longest_pause=timedelta(milliseconds=5)
)


def on_loop(test: Callable[_P, Awaitable[None]]) -> Callable[_P, None]:
    """Run a test that is a coroutine function on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


class FixedToken:
    """Always the same token."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token


class FailingQueue(MemoryQueue):
    """A queue whose enqueues and look-ups raise `error` while it is set."""

    error: WorkQueueError | None = None

    async def queue(self, key: str, options: Options = Options()) -> None:
        if self.error is not None:
            raise self.error
        await super().queue(key, options)


def channel_to(server: GrpcServer) -> Any:
    """A plain channel, without any setting of ours."""
    return grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")


def trailers_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """What a failed call ended with; its metadata is typed as opaque."""
    metadata: Any = error.trailing_metadata()
    return {name: value for name, value in metadata}  # noqa: C416 - as a mapping, an old gRPC takes the pairs for names


@asynccontextmanager
async def stub_of(server: GrpcServer) -> AsyncIterator[WorkqueueServiceAsyncStub]:
    """A raw stub, as any gRPC client has it."""
    async with channel_to(server) as channel:
        yield WorkqueueServiceStub(channel)


@asynccontextmanager
async def received(queue: MemoryQueue, retries: Retries = ONCE) -> AsyncIterator[Client]:
    """A client of a receiver of `queue`."""
    async with receive(queue, port=0) as server, client_of(server, retries=retries) as client:
        yield client


def client_of(
    server: GrpcServer,
    *,
    scheme: str = "grpc",
    security: ClientSecurity | None = None,
    retries: Retries = ONCE,
) -> Client:
    return connect(f"{scheme}://127.0.0.1:{server.port}", security=security, retries=retries)


@asynccontextmanager
async def nonsense() -> AsyncIterator[str]:
    """The address of a server that answers every call of ours with bytes that are no message."""

    async def answer(request: bytes, context: Any) -> bytes:
        return b"\xff\xff\xff"

    method = grpc.unary_unary_rpc_method_handler(answer)
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Process": method, "GetKeyState": method})
    health = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})
    server.add_generic_rpc_handlers((handler, health))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def refused(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """The status with which `call` fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value
