"""What dispatching adds to gRPC calls: `service_callback` beside a bare grpc.aio client, as many in flight, one server.

`python -m benchmarks.grpc_dispatch [--loop uvloop]`. The server has a process and, where there are two, a CPU of its
own; rounds are interleaved and medians compared. A Python server is slower than either client, so the CPU time of the
client says more than the calls per second.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc

from benchmarks.cycle import interleaved, runner, show
from dispatcher import Dispatcher, DispatcherSettings, service_callback
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.pb.workqueue_pb2_grpc import (
    WorkqueueServiceServicer,
    WorkqueueServiceStub,
    add_WorkqueueServiceServicer_to_server,
)

IN_FLIGHT = 100
CALLS = 6_000


class NoOp(WorkqueueServiceServicer):
    """A reconciler for which everything is as it should be."""

    async def Process(self, request: pb.ProcessRequest, context: Any) -> pb.ProcessResponse:  # noqa: N802
        return pb.ProcessResponse()

    async def GetKeyState(self, request: pb.GetKeyStateRequest, context: Any) -> pb.KeyState:  # noqa: N802
        return pb.KeyState()


async def serve() -> None:
    """The server process: prints its port, ends when its input does."""
    server = grpc.aio.server()
    add_WorkqueueServiceServicer_to_server(NoOp(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


async def compare(port: int, now: Callable[[], float]) -> list[float]:
    """Calls per second of `now`, bare and dispatched."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def bare() -> float:
            process, numbers = WorkqueueServiceStub(channel).Process, iter(range(CALLS))

            async def caller() -> None:
                for number in numbers:
                    await process(pb.ProcessRequest(key=f"key-{number}"))

            began = now()
            await asyncio.gather(*[caller() for _ in range(IN_FLIGHT)])
            return CALLS / (now() - began)

        async def dispatched() -> float:
            queue, callback = await MemoryQueue().__aenter__(), service_callback(channel)
            for number in range(CALLS):
                await queue.queue(f"key-{number}")
            began = now()
            async with Dispatcher(queue, callback, DispatcherSettings(concurrency=IN_FLIGHT)) as dispatcher:
                while dispatcher.metrics.outcomes["completed"] < CALLS:  # noqa: ASYNC110 - it has no event to wait for
                    await asyncio.sleep(0.005)
                return CALLS / (now() - began)

        return await interleaved(bare, dispatched)


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
        port, run = int(server.stdout.readline()), runner(arguments.loop)
        bare, dispatched = run(compare(port, time.perf_counter))
        show(f"bare grpc.aio client, {IN_FLIGHT} in flight", f"{bare:,.0f}/s", arguments.loop)
        show("dispatched by service_callback", f"{dispatched:,.0f}/s", f"ratio {dispatched / bare:.2f} (at least 0.80)")
        bare, dispatched = run(compare(port, time.process_time))
        show("bare client, CPU a call", f"{1e6 / bare:,.0f} us")
        show("dispatched, CPU a call", f"{1e6 / dispatched:,.0f} us", f"ratio {dispatched / bare:.2f}")
        server.stdin.close()
    return None


if __name__ == "__main__":
    main()
