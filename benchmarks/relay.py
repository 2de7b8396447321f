"""What the relay costs: accepting beside the same HTTP server with an empty handler, delivering beside a bare client.

`python -m benchmarks.relay [--requests N] [--stored N] [--seconds S] [--rounds N] [--folder DIR]`. Everything is a
process of its own, on SQLite with fsync on. What is compared takes turns, and ratios are medians over the rounds. Each
has its CPU beside it, which stays the same on a machine that others use too. Accepting is measured while the queue is
paused; delivering from requests that were stored before, from when it is resumed until the last has reached its target.
Both at once is paced by the callers; its backlog is what was accepted and has not reached the target.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import cast
from uuid import uuid4

import uvloop

from benchmarks.relay_processes import BODY, Child, bare_client, empty_server, relay
from dispatcher.relay.request import RelayedRequest, new_id
from dispatcher.relay.target import Target
from workqueue import Options, open_queue
from workqueue.throttle import Configuration

CALLERS = 64
PACE = 1_000
_CHUNK = 5_000

Measured = tuple[float, float]
"""Requests a second, and CPU in seconds a request."""


class Caller(asyncio.Protocol):
    """One connection that has one request on its way at a time: much cheaper than a client library."""

    def __init__(self, request: bytes, wanted: Callable[[], bool]) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.took = 0
        self._request = request
        self._wanted = wanted
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own, which is none by inheritance
        self.go_on()

    def go_on(self) -> None:
        """Send another request, if one is wanted."""
        if self._wanted():
            self._transport.write(self._request)
        elif not self.done.done():
            self._transport.close()
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, gap, body = self._got.partition(b"\r\n\r\n")
        if not gap or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        if b" 202 " not in head.partition(b"\r\n")[0]:
            raise SystemExit(f"a request was not taken: {self._got!r}")
        self._got = b""
        self.took += 1
        self.go_on()


def request_to(port: int, target: int) -> bytes:
    """A request as a caller of a relay sends it."""
    head = (
        f"POST /orders HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Dispatcher-Original-Host: http://127.0.0.1:{target}\r\n"
    )
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY


async def called(port: int, target: int, requests: int) -> float:
    """Requests a second of 64 callers."""
    left = iter(range(requests))
    request = request_to(port, target)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    made = [
        await loop.create_connection(lambda: Caller(request, lambda: next(left, None) is not None), "127.0.0.1", port)
        for _ in range(CALLERS)
    ]
    await asyncio.gather(*[caller.done for _, caller in made])
    return requests / (time.perf_counter() - began)


def accepted(child: Child, target: int, requests: int) -> Measured:
    """How fast `child` takes requests in."""
    cpu = child.cpu
    rate = uvloop.run(called(child.port, target, requests))
    return rate, (child.cpu - cpu) / requests


@dataclass(frozen=True)
class Place:
    """A folder for stores and logs."""

    folder: Path

    def new_url(self) -> str:
        """A queue that nobody has used; its payloads are as large as a relay's."""
        return f"sqlite:///{self.folder}/{uuid4().hex}.db?name=relay&max_payload={(1 << 20) + (64 << 10)}"

    @contextmanager
    def paused(self, stored: int, target: int, at_once: int = CALLERS) -> Iterator[tuple[Child, str]]:
        """A relay that delivers nothing yet, and has `stored` requests for the target; yields the queue's URL too."""
        url = self.new_url()
        uvloop.run(_prepare(url, stored, target))
        with relay(self.folder, url, at_once) as child:
            yield child, url


async def _prepare(url: str, stored: int, target: int) -> None:
    async with open_queue(url) as queue:
        await queue.configure(Configuration(paused=True))
        for start in range(0, stored, _CHUNK):
            await queue.queue_many([_item(target) for _ in range(min(_CHUNK, stored - start))])


def _item(port: int) -> tuple[str, Options]:
    target, now_us = Target("http", "127.0.0.1", port), time.time_ns() // 1000
    headers = [("content-type", "application/json")]
    request = RelayedRequest("POST", target, "/orders", headers, BODY, timedelta(seconds=10), now_us)
    return new_id(target), Options(payload=request.to_payload())


async def _resume(url: str) -> None:
    async with open_queue(url) as queue:
        await queue.configure(Configuration())


async def _until_delivered(url: str, left: int) -> None:
    """Return once at most `left` requests are not delivered."""
    async with open_queue(url) as queue:
        while True:
            counts = await queue.counts()
            if counts.queued + counts.in_progress + counts.not_before <= left:
                return
            await asyncio.sleep(0.02)


def delivered(place: Place, target: int, requests: int, stored: int) -> Measured:
    """How fast a relay delivers `requests`, of `stored` in all."""
    with place.paused(stored, target) as (child, url):
        cpu, began = child.cpu, time.perf_counter()
        uvloop.run(_resume(url))
        uvloop.run(_until_delivered(url, stored - requests))
        took, spent = time.perf_counter() - began, child.cpu - cpu
        return requests / took, spent / requests


async def _paced(child: Child, url: str, target: int, seconds: float) -> list[int]:
    """Send 1,000 requests a second; the backlog after each second."""

    async def call_at_pace(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", child.port)
        request, period = request_to(child.port, target), CALLERS / PACE
        when = began + period * number / CALLERS
        while when < began + seconds:
            await asyncio.sleep(max(when - loop.time(), 0))
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            when += period
        writer.close()

    loop = asyncio.get_running_loop()
    began = loop.time()
    backlog: list[int] = []
    async with open_queue(url) as queue, asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(call_at_pace(number))
        for second in range(1, int(seconds) + 1):
            await asyncio.sleep(max(began + second - loop.time(), 0))
            counts = await queue.counts()
            backlog.append(counts.queued + counts.in_progress + counts.not_before)
    return backlog


def show(name: str, ours: Sequence[Measured], theirs: Sequence[Measured], what: str, asked: str) -> None:
    """One line: rates, CPU, and the medians of the ratios of each round."""
    ratio = median(mine[0] / other[0] for mine, other in zip(ours, theirs, strict=True))
    by_cpu = median(other[1] / mine[1] for mine, other in zip(ours, theirs, strict=True))
    rates = [(median(rate for rate, _ in each), median(cpu for _, cpu in each) * 1e6) for each in (ours, theirs)]
    (rate, cpu), (other_rate, other_cpu) = rates
    print(
        f"| {name} | {rate:,.0f}/s, {cpu:.0f} µs of CPU | {what}: {other_rate:,.0f}/s, {other_cpu:.0f} µs "
        f"| **{ratio:.2f}**, by CPU {by_cpu:.2f} | {asked} |",
        flush=True,
    )


def show_accepting(place: Place, target: int, requests: int, rounds: int) -> None:
    ours, theirs = [], []
    with empty_server(place.folder, "empty") as empty, place.paused(0, target) as (child, _):
        for _ in range(rounds):
            theirs.append(accepted(empty, target, requests))
            ours.append(accepted(child, target, requests))
    show("accepting alone, 64 callers", ours, theirs, "an empty handler", "0.25")


def show_delivering(place: Place, target: int, requests: int, rounds: int) -> None:
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(bare_client(target, requests, CALLERS))
        ours.append(delivered(place, target, requests, requests))
    show("delivering alone, 64 at a time", ours, theirs, "a bare aiohttp client", "0.50")


def show_backlog(place: Place, target: int, requests: int, stored: int, rounds: int) -> None:
    """Accepting and delivering with many stored requests, beside few."""
    few, many = [], []
    with place.paused(0, target) as (empty, _), place.paused(stored, target) as (full, _):
        for _ in range(rounds):
            few.append(accepted(empty, target, requests))
            many.append(accepted(full, target, requests))
    show(f"accepting with {stored:,} stored", many, few, "with none", "at least 0.67")
    few, many = [], []
    for _ in range(rounds):
        few.append(delivered(place, target, requests, requests))
        many.append(delivered(place, target, requests, stored + requests))
    show(f"delivering with {stored:,} stored", many, few, "with no more than those", "at least 0.67")


def show_both(place: Place, target: int, seconds: float) -> None:
    with place.paused(0, target) as (child, url):
        uvloop.run(_resume(url))
        cpu = child.cpu
        backlog = uvloop.run(_paced(child, url, target, seconds))
        spent = (child.cpu - cpu) / (seconds * PACE) * 1e6
    half = len(backlog) // 2
    first, last = median(backlog[:half]), median(backlog[half:])
    print(
        f"| both at once, {PACE:,}/s for {seconds:.0f} s | {spent:.0f} µs of CPU a request "
        f"| backlog, first and last half | {first:.0f}, **{last:.0f}** (most {max(backlog)}) | flat |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="in each round")
    parser.add_argument("--stored", type=int, default=100_000, help="beside those, for the last part")
    parser.add_argument("--seconds", type=float, default=30, help="of both at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="for stores; on the disk that is to be measured")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder, empty_server(Path(folder), "target") as target:
        place, port, requests = Place(Path(folder)), target.port, given.requests
        print("| what | measured | beside | ratio | asked |\n|---|---|---|---|---|")
        show_accepting(place, port, requests, given.rounds)
        show_delivering(place, port, requests, given.rounds)
        show_both(place, port, given.seconds)
        show_backlog(place, port, requests, given.stored, given.rounds)


if __name__ == "__main__":
    main()
