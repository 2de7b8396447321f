"""The processes of the relay's benchmark: the relay, an empty HTTP server of the same make, a bare aiohttp client.

`python -m benchmarks.relay_processes empty` and `… client PORT REQUESTS AT_ONCE` are what the benchmark starts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import ClientSession, TCPConnector
from starlette.types import Receive, Scope, Send

from tests.support.processes import REPOSITORY, clean_environment
from workqueue.web.http_limits import HttpLimits
from workqueue.web.server import http_server

__all__ = ["BODY", "Child", "bare_client", "empty_server", "relay"]

BODY = b'{"order": 123456, "customer": "a customer", "lines": [{"article": "x", "number": 1}]}'
_TICKS = os.sysconf("SC_CLK_TCK")
_STARTS_SECONDS = 60


@dataclass
class Child:
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def cpu(self) -> float:
        """Seconds of CPU until now, all of its threads together."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def _child(log: Path, *command: str) -> Iterator[Child]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=REPOSITORY, env=clean_environment({}), stderr=file, stdout=file
        )
    try:
        yield Child(process, _port_in(log, process))
    finally:
        process.terminate()
        process.wait()


def _port_in(log: Path, process: subprocess.Popen[bytes]) -> int:
    until = time.monotonic() + _STARTS_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"metrics on 127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.02)
    raise SystemExit(f"a process did not start: {log.read_text()}")


def relay(folder: Path, url: str, at_once: int) -> AbstractContextManager[Child]:
    """`dispatcher relay` on the queue at `url`, with so many calls at a time."""
    targets = ("--allow-target", "127.0.0.1", "--per-target", str(at_once))
    return _child(folder / "relay.log", "dispatcher.cli", "relay", "--queue", url, "--http-port", "0", *targets)


def empty_server(folder: Path, name: str) -> AbstractContextManager[Child]:
    """The same HTTP server, with a handler that reads the body and answers."""
    return _child(folder / f"{name}.log", "benchmarks.relay_processes", "empty")


def bare_client(port: int, requests: int, at_once: int) -> tuple[float, float]:
    """Requests a second of a bare aiohttp client, and its CPU in seconds a request."""
    command = [sys.executable, "-m", "benchmarks.relay_processes", "client", str(port), str(requests), str(at_once)]
    done = subprocess.run(command, cwd=REPOSITORY, env=clean_environment({}), capture_output=True, check=True)
    rate, cpu = done.stdout.split()
    return float(rate), float(cpu)


async def _empty(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"3")]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}\n"})


async def _serve_empty() -> None:
    async with http_server(_empty, "127.0.0.1", 0, limits=HttpLimits(body_bytes=1 << 20)) as port:
        print(f"metrics on 127.0.0.1:{port}", flush=True)
        await asyncio.Event().wait()


async def _call(port: int, requests: int, at_once: int) -> None:
    left = iter(range(requests))

    async def caller(session: ClientSession) -> None:
        for _ in left:
            async with session.post(f"http://127.0.0.1:{port}/orders", data=BODY) as response:
                await response.read()

    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*[caller(session) for _ in range(at_once)])
        print(requests / (time.perf_counter() - began), (time.process_time() - cpu) / requests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["empty", "client"])
    parser.add_argument("numbers", type=int, nargs="*")
    given = parser.parse_args()
    uvloop.run(_serve_empty() if given.what == "empty" else _call(*given.numbers))


if __name__ == "__main__":
    main()
