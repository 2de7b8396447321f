"""Health checks: the empty name means alive, the service's name means ready, its store included."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.dispatching import opened, until
from tests.support.grpc import FailingQueue, channel_to, nonsense, on_loop, refused
from tests.support.reconcilers import complete
from workqueue.access.security import ServerSecurity
from workqueue.access.tokens import StaticTokens
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import StoreUnavailableError
from workqueue.interface import KeyState
from workqueue.readiness import of_store
from workqueue.rpc.receiver import receive
from workqueue.rpc.reconciler import serve
from workqueue.rpc.scaler import scale
from workqueue.rpc.server import GrpcServer
from workqueue.rpc.sharding import route
from workqueue.rpc.wire import SERVICE
from workqueue.testing import FakeClock

Status = health_pb2.HealthCheckResponse


class DownQueue(MemoryQueue):
    """A queue whose store does not answer while it is down."""

    down = True
    asked = 0

    async def get(self, key: str) -> KeyState:
        self.asked += 1
        if self.down:
            raise StoreUnavailableError("Redis at 10.0.0.7:6379 does not answer")
        return await super().get(key)


@asynccontextmanager
async def health_of(server: GrpcServer) -> AsyncIterator[Any]:
    async with server, channel_to(server) as channel:
        yield health_pb2_grpc.HealthStub(channel)


async def status(health: Any, service: str) -> int:
    return int((await health.Check(health_pb2.HealthCheckRequest(service=service))).status)


@on_loop
async def test_a_receiver_whose_store_works_is_alive_and_ready() -> None:
    async with health_of(receive(opened(MemoryQueue()), port=0)) as health:
        assert [await status(health, name) for name in ("", SERVICE)] == [Status.SERVING, Status.SERVING]


@on_loop
async def test_a_receiver_whose_store_is_gone_is_alive_and_not_ready() -> None:
    async with health_of(receive(opened(DownQueue()), port=0)) as health:
        assert [await status(health, name) for name in ("", SERVICE)] == [Status.SERVING, Status.NOT_SERVING]


@on_loop
async def test_a_server_that_drains_is_alive_and_not_ready() -> None:
    server = receive(opened(MemoryQueue()), port=0)
    async with health_of(server) as health:
        server.stop()

        assert [await status(health, name) for name in ("", SERVICE)] == [Status.SERVING, Status.NOT_SERVING]


async def test_a_receiver_in_a_process_that_drains_is_alive_and_not_ready() -> None:
    async with health_of(receive(opened(MemoryQueue()), port=0, drains=lambda: True)) as health:
        assert [await status(health, name) for name in ("", SERVICE)] == [Status.SERVING, Status.NOT_SERVING]


async def test_a_reconciler_that_drains_is_alive_and_not_ready() -> None:
    server = serve(complete, port=0)
    async with health_of(server) as health:
        before = [await status(health, name) for name in ("", SERVICE)]
        server.stop()

        assert before == [Status.SERVING, Status.SERVING]
        assert [await status(health, name) for name in ("", SERVICE)] == [Status.SERVING, Status.NOT_SERVING]


async def test_a_hyperqueue_is_ready_while_any_of_its_shards_can_be_reached() -> None:
    async with receive(opened(MemoryQueue()), port=0) as shard:
        shards = ["grpc://127.0.0.1:1", f"grpc://127.0.0.1:{shard.port}"]
        async with route(shards, port=0) as server, channel_to(server) as channel:
            assert await status(health_pb2_grpc.HealthStub(channel), SERVICE) == Status.SERVING


async def test_a_hyperqueue_that_reaches_no_shard_is_alive_and_not_ready(caplog: pytest.LogCaptureFixture) -> None:
    async with route(["grpc://127.0.0.1:1"], port=0) as server, channel_to(server) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert [await status(health, name) for name in ("", SERVICE)] == [Status.SERVING, Status.NOT_SERVING]

    assert any(line.startswith("not ready: shard grpc://127.0.0.1:1: UNAVAILABLE") for line in caplog.messages)


@pytest.mark.parametrize("down", [1, 2])
async def test_a_hyperqueue_is_ready_while_the_store_of_any_of_its_shards_works(
    down: int, caplog: pytest.LogCaptureFixture
) -> None:
    queues = [opened(DownQueue()), opened(MemoryQueue() if down == 1 else DownQueue())]
    async with AsyncExitStack() as stack:
        shards = [await stack.enter_async_context(receive(queue, port=0)) for queue in queues]
        server = await stack.enter_async_context(route([f"grpc://127.0.0.1:{shard.port}" for shard in shards], port=0))
        channel = await stack.enter_async_context(channel_to(server))
        ready = await status(health_pb2_grpc.HealthStub(channel), SERVICE)
        await until(lambda: "not ready: shard" in caplog.text)

    assert ready == (Status.SERVING if down == 1 else Status.NOT_SERVING)


async def test_a_hyperqueue_whose_shard_answers_nonsense_is_not_ready(caplog: pytest.LogCaptureFixture) -> None:
    async with nonsense() as shard, route([shard], port=0) as server, channel_to(server) as channel:
        ready = await status(health_pb2_grpc.HealthStub(channel), SERVICE)

    assert ready == Status.NOT_SERVING
    assert "its answer cannot be read" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_shard_that_hangs_does_not_keep_a_probe_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with receive(opened(MemoryQueue()), port=0) as shard:
            shards = [f"grpc://127.0.0.1:{silent.getsockname()[1]}", f"grpc://127.0.0.1:{shard.port}"]
            async with route(shards, port=0) as server, channel_to(server) as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)
                asked = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=2.0)

                assert (await asked).status == Status.SERVING


@pytest.mark.parametrize("down", [1, 2])
async def test_a_scaler_is_ready_while_the_store_of_any_of_its_queues_works(down: int) -> None:
    queues = {"a": opened(DownQueue()), "b": opened(MemoryQueue() if down == 1 else DownQueue())}
    server = scale(queues, port=0)
    async with health_of(server) as health:
        ready = await status(health, "externalscaler.ExternalScaler")

    assert ready == (Status.SERVING if down == 1 else Status.NOT_SERVING)


@on_loop
async def test_whoever_watches_learns_of_the_drain() -> None:
    server = receive(opened(MemoryQueue()), port=0)
    async with health_of(server) as health:
        watching = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        seen = aiter(watching)
        assert (await anext(seen)).status == Status.SERVING
        server.stop()
        assert (await anext(seen)).status == Status.NOT_SERVING
        watching.cancel()


@on_loop
async def test_a_service_that_is_not_here_is_not_found() -> None:
    async with health_of(receive(opened(MemoryQueue()), port=0)) as health:
        error = await refused(health.Check(health_pb2.HealthCheckRequest(service="other")))
        seen = aiter(health.Watch(health_pb2.HealthCheckRequest(service="other")))

        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert (await anext(seen)).status == Status.SERVICE_UNKNOWN


@on_loop
async def test_checks_need_no_token_but_a_watch_that_stays_does() -> None:
    security = ServerSecurity(tokens=StaticTokens(["secret"]))
    async with health_of(receive(opened(MemoryQueue()), port=0, security=security)) as health:
        assert await status(health, SERVICE) == Status.SERVING
        error = await refused(anext(aiter(health.Watch(health_pb2.HealthCheckRequest()))))

        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


@on_loop
async def test_why_a_store_cannot_be_used_names_no_address_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    clock, queue = FakeClock(), opened(DownQueue())
    readiness = of_store(queue, clock)

    for _ in range(3):
        assert "10.0.0.7" not in await readiness.why_unready() != ""
        clock.advance(timedelta(seconds=5))

    assert [record.getMessage() for record in caplog.records] == [
        "not ready: StoreUnavailableError: Redis at 10.0.0.7:6379 does not answer"
    ]
    queue.down = False
    assert await readiness.why_unready() == ""


@on_loop
async def test_a_store_is_asked_once_for_all_who_ask_within_five_seconds() -> None:
    clock, queue = FakeClock(), opened(DownQueue())
    readiness = of_store(queue, clock)

    await asyncio.gather(*(readiness.why_unready() for _ in range(10)))
    assert queue.asked == 1
    clock.advance(timedelta(seconds=5))
    await readiness.why_unready()
    assert queue.asked == 2


@on_loop
async def test_a_store_that_does_not_answer_at_all_is_not_waited_for() -> None:
    class SilentQueue(FailingQueue):
        async def get(self, key: str) -> KeyState:
            await asyncio.Event().wait()
            raise AssertionError

    assert await of_store(SilentQueue()).why_unready() != ""
