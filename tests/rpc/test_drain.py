"""A reconciler that is being stopped: no key pays for a restart."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.grpc import on_loop, refused, stub_of
from tests.support.processes import spawned
from workqueue import RequeueAfter
from workqueue.attempt import Attempt, Callback
from workqueue.rpc.drain import Drain, DrainTimes
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceStub
from workqueue.rpc.reconciler import serve
from workqueue.rpc.wire import SERVICE, response_of

if TYPE_CHECKING:
    from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceAsyncStub

REPOSITORY = Path(__file__).resolve().parents[2]
SERVING = health_pb2.HealthCheckResponse.SERVING
Leave = Callable[[], Awaitable[None]]

AT_ONCE = DrainTimes(patience=timedelta(0))
IN_TIME = DrainTimes(patience=timedelta(minutes=1))
K = pb.ProcessRequest(key="k")


def asks_to_come_back(answer: pb.ProcessResponse) -> bool:
    return 15 <= answer.requeue_after_seconds <= 45 and not answer.requeue_floor


@asynccontextmanager
async def serving(callback: Callback, times: DrainTimes) -> AsyncIterator[tuple[WorkqueueServiceAsyncStub, Leave]]:
    """A stub of a server that is left, and so drains, when the test says so."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(callback, port=0, times=times))
        leave = stack.pop_all().aclose
        async with stub_of(server) as stub:
            yield stub, leave


@on_loop
async def test_a_callback_that_does_not_finish_is_cancelled_and_its_key_requeued() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def callback(key: str, attempt: Attempt) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert attempt.lost.is_set()
            cancelled.set()

    async with serving(callback, AT_ONCE) as (stub, leave):
        call = asyncio.ensure_future(stub.Process(K))
        await started.wait()
        await leave()
        assert asks_to_come_back(await call)
        await cancelled.wait()


@on_loop
async def test_a_callback_that_ignores_its_cancellation_does_not_hold_up_the_answer() -> None:
    started, proceed = asyncio.Event(), asyncio.Event()

    async def callback(key: str, attempt: Attempt) -> None:
        started.set()
        while not proceed.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await proceed.wait()

    async with serving(callback, AT_ONCE) as (stub, leave):
        call = asyncio.ensure_future(stub.Process(K))
        await started.wait()
        await leave()
        assert asks_to_come_back(await call)
    proceed.set()


@on_loop
async def test_a_thread_does_not_hold_up_the_answer() -> None:
    loop, started, proceed = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def callback(key: str, attempt: Attempt) -> None:
        loop.call_soon_threadsafe(started.set)
        proceed.wait(30)

    async with serving(callback, AT_ONCE) as (stub, leave):
        call = asyncio.ensure_future(stub.Process(K))
        await started.wait()
        await leave()
        assert asks_to_come_back(await call)
    proceed.set()


@pytest.mark.parametrize("error", [None, ValueError("its own fault")], ids=["outcome", "error"])
@on_loop
async def test_a_callback_that_ends_in_time_keeps_its_answer(error: Exception | None) -> None:
    started, proceed = asyncio.Event(), asyncio.Event()

    async def callback(key: str, attempt: Attempt) -> RequeueAfter:
        started.set()
        await proceed.wait()
        raise error or RequeueAfter(timedelta(seconds=7))

    async with serving(callback, IN_TIME) as (stub, leave):
        call = asyncio.ensure_future(stub.Process(K))
        await started.wait()
        leaving = asyncio.ensure_future(leave())
        proceed.set()
        if error is None:
            assert (await call).requeue_after_seconds == 7
        else:
            assert (await refused(call)).details() == "ValueError: its own fault"
        await leaving


@on_loop
async def test_a_call_that_comes_in_while_draining_is_requeued_without_a_callback() -> None:
    started, proceed = asyncio.Event(), asyncio.Event()

    async def callback(key: str, attempt: Attempt) -> None:
        if key == "long":
            started.set()
            await proceed.wait()

    async with serving(callback, IN_TIME) as (stub, leave):
        long = asyncio.ensure_future(stub.Process(pb.ProcessRequest(key="long")))
        await started.wait()
        leaving = asyncio.ensure_future(leave())
        while not asks_to_come_back(await stub.Process(K)):
            pass
        proceed.set()
        assert await long == pb.ProcessResponse()
        await leaving


@on_loop
async def test_health_says_not_serving_from_the_moment_of_the_drain() -> None:
    started, proceed = asyncio.Event(), asyncio.Event()

    async def callback(key: str, attempt: Attempt) -> None:
        started.set()
        await proceed.wait()

    server = serve(callback, port=0, times=IN_TIME)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        leave = stack.pop_all().aclose
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        call = asyncio.ensure_future(WorkqueueServiceStub(channel).Process(K))
        await started.wait()
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
        leaving = asyncio.ensure_future(leave())
        while (await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))).status == SERVING:
            pass
        proceed.set()
        await asyncio.gather(call, leaving)


@pytest.mark.parametrize(("rand", "seconds"), [(0.0, 15), (0.5, 30), (0.999, 45)])
@on_loop
async def test_keys_come_back_spread_over_half_a_minute(rand: float, seconds: int) -> None:
    drain: Drain[pb.ProcessResponse] = Drain(DrainTimes(), response_of, rand=lambda: rand)
    await drain.drain()

    answer = await drain.run(asyncio.sleep(0, pb.ProcessResponse()), lambda: None)

    assert answer.requeue_after_seconds == seconds


PROGRAM = """
import asyncio, logging
from datetime import timedelta
from workqueue.rpc.drain import DrainTimes
from workqueue.rpc.reconciler import serve

async def callback(key, attempt):
    print("started", flush=True)
    await asyncio.Event().wait()

logging.basicConfig(level="INFO")

async def main():
    patience = timedelta(seconds={patience})
    async with serve(callback, port=0, times=DrainTimes(patience)) as server:
        print(server.port, flush=True)
        await server.wait()

asyncio.run(main())
"""


async def ended_by(patience: int, *signals: signal.Signals) -> None:
    """A call that runs is answered, and the process exits with 0."""
    async with spawned([sys.executable, "-c", PROGRAM.format(patience=patience)]) as it:
        port = int(await it.said())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = asyncio.ensure_future(WorkqueueServiceStub(channel).Process(K))
            assert await it.said() == "started"
            for number in signals:
                it.process.send_signal(number)
                await it.logged("drain")
            assert asks_to_come_back(await call)
        assert await it.process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@on_loop
async def test_a_signal_drains_a_process(number: signal.Signals) -> None:
    await ended_by(0, number)


@on_loop
async def test_a_second_signal_hurries_the_drain_and_no_key_pays_for_it() -> None:
    await ended_by(600, signal.SIGTERM, signal.SIGTERM)
