"""Keys over gRPC, beside as many calls of a bare grpc.aio client to a bare server, in turns: dispatched by
`service_callback` to a reconciler that has streams and to one that has none, and enqueued by `client.queue_many`.

`python -m benchmarks.grpc_dispatch [--loop uvloop]`. The servers have a process and, where there are two, a CPU of
their own; rounds are interleaved and medians compared. CPU time is that of the client's process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import grpc

from benchmarks.cycle import interleaved, runner, show
from dispatcher import Dispatcher, DispatcherSettings, service_callback
from dispatcher.targets.service import ServiceCallback
from workqueue.attempt import Attempt
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.options import Options
from workqueue.rpc.client import connect
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.pb.workqueue_pb2_grpc import (
    WorkqueueServiceServicer,
    WorkqueueServiceStub,
    add_WorkqueueServiceServicer_to_server,
)
from workqueue.rpc.receiver import receive
from workqueue.rpc.reconciler import serve as serve_callback

IN_FLIGHT = 100
CALLS = 10_000
OURS = {"dispatched, call by call": 0.8, "dispatched in streams": 3, "client.queue_many": 5}


class NoOp(WorkqueueServiceServicer):
    """A reconciler in bare grpc.aio, without streams, for which everything is as it should be."""

    async def Process(self, request: pb.ProcessRequest, context: Any) -> pb.ProcessResponse:  # noqa: N802
        return pb.ProcessResponse()

    async def GetKeyState(self, request: pb.GetKeyStateRequest, context: Any) -> pb.KeyState:  # noqa: N802
        return pb.KeyState()

    async def ProcessMany(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        yield None

    async def QueueMany(self, batch: pb.QueueManyRequest, context: Any) -> pb.QueueManyResponse:  # noqa: N802
        return pb.QueueManyResponse()


async def serve() -> None:
    """The process of the servers: prints their ports, ends when its input does."""
    bare = grpc.aio.server()
    add_WorkqueueServiceServicer_to_server(NoOp(), bare)
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    async with (
        MemoryQueue() as queue,
        receive(queue, port=0) as receiver,
        serve_callback(nothing, port=0) as reconciler,
    ):
        print(port, reconciler.port, receiver.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await bare.stop(None)


async def nothing(key: str, attempt: Attempt) -> None:
    """A reconciler for which everything is as it should be."""


async def compare(ports: Sequence[int], now: Callable[[], float]) -> list[float]:
    """Keys per second of `now`: bare, dispatched without and with streams, enqueued."""
    bare_port, reconciler_port, receiver_port = ports
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{bare_port}") as channel,
        service_callback(f"grpc://127.0.0.1:{bare_port}") as unary,
        service_callback(f"grpc://127.0.0.1:{reconciler_port}") as streamed,
        connect(f"grpc://127.0.0.1:{receiver_port}") as client,
    ):
        process = WorkqueueServiceStub(channel).Process

        async def bare() -> float:
            numbers = iter(range(CALLS))

            async def caller() -> None:
                for number in numbers:
                    await process(pb.ProcessRequest(key=f"key-{number}"))

            began = now()
            await asyncio.gather(*[caller() for _ in range(IN_FLIGHT)])
            return CALLS / (now() - began)

        async def enqueued() -> float:
            items = [(f"key-{number}", Options()) for number in range(CALLS)]
            began = now()
            await client.queue_many(items)
            return CALLS / (now() - began)

        return await interleaved(bare, partial(dispatched, unary, now), partial(dispatched, streamed, now), enqueued)


async def dispatched(callback: ServiceCallback, now: Callable[[], float]) -> float:
    queue = await MemoryQueue().__aenter__()
    for number in range(CALLS):
        await queue.queue(f"key-{number}")
    began = now()
    async with Dispatcher(queue, callback, DispatcherSettings(concurrency=IN_FLIGHT)) as dispatcher:
        while dispatcher.metrics.outcomes["completed"] < CALLS:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.005)
        return CALLS / (now() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[0] if arguments.serve else cpus[-1]})
    if arguments.serve:
        return asyncio.run(serve())

    command = [sys.executable, "-m", "benchmarks.grpc_dispatch", "--serve"]
    os.sched_setaffinity(0, cpus)  # for the child to choose from
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        os.sched_setaffinity(0, {cpus[-1]})
        assert server.stdin is not None
        assert server.stdout is not None
        ports, run = [int(port) for port in server.stdout.readline().split()], runner(arguments.loop)
        bare, *ours = run(compare(ports, time.perf_counter))
        show(f"bare grpc.aio client, {IN_FLIGHT} in flight", f"{bare:,.0f}/s", arguments.loop)
        for (name, least), rate in zip(OURS.items(), ours, strict=True):
            show(name, f"{rate:,.0f}/s", f"ratio {rate / bare:.2f} (at least {least})")
        bare, *ours = run(compare(ports, time.process_time))
        show("bare client, CPU a call", f"{1e6 / bare:,.0f} us")
        for name, rate in zip(OURS, ours, strict=True):
            show(f"{name}, CPU a key", f"{1e6 / rate:,.0f} us", f"ratio {rate / bare:.2f}")
        server.stdin.close()
    return None


if __name__ == "__main__":
    main()
