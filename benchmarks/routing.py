"""What routing a message costs, beside a bare loop over as many lambdas with an empty handler behind it.

`python -m benchmarks.routing`. Each figure is the best of many short slices, taken in turns on one CPU: other work on
the machine makes a slice slower, never faster, so that the best ones are those that were left alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from workqueue.routing import Router, Source, all_of, field_equals, fields, has_fields
from workqueue.routing.messages.discriminators import Discriminator

SOURCES = 20
CALLS = 200
SLICES = 300
KINDS = ("field_equals", "has_fields", "all_of", "a lambda")

Slice = Callable[[], Awaitable[float]]


class User(msgspec.Struct):
    id: int
    name: str
    email: str


async def empty(user: User) -> None:
    """A handler that does nothing."""


def message(number: int) -> bytes:
    """A message that source `number` takes; none takes that of source 99."""
    payload = {"id": number, "name": "Ada", "email": "ada@example.org"}
    return json.dumps({"source": f"s{number}", f"f{number}": 1, "type": "user/created", "payload": payload}).encode()


def discriminator(kind: str, number: int) -> Discriminator:
    name, field = f"s{number}", f"f{number}"
    if kind == "field_equals":
        return field_equals("source", name)
    if kind == "has_fields":
        return has_fields(field, "payload")
    if kind == "all_of":
        return all_of(has_fields("type", "payload"), field_equals("source", name))
    return lambda view: view["source"] == name


def router(kind: str, sources: int) -> Router:
    made = Router(*(Source(f"s{n}", discriminator(kind, n), fields("type", "payload")) for n in range(sources)))
    made.proc("user/created")(empty)
    return made


def routed(made: Router, raw: bytes) -> Slice:
    """Messages through a router; one that nobody takes costs its error too, raised and caught."""

    async def run() -> float:
        process, began = made.process, time.perf_counter()
        for _ in range(CALLS):
            try:
                await process(raw)
            except LookupError:
                raise
            except Exception:  # noqa: BLE001 - nobody takes it
                pass
        return (time.perf_counter() - began) / CALLS

    return run


def bare() -> Slice:
    """What a router cannot be faster than: 20 lambdas over a decoded message, and an empty handler."""
    seen: Mapping[str, Any] = json.loads(message(SOURCES - 1))
    lambdas = [discriminator("a lambda", number) for number in range(SOURCES)]
    user = User(1, "Ada", "")

    async def run() -> float:
        began = time.perf_counter()
        for _ in range(CALLS):
            for says in lambdas:
                if says(seen):
                    await empty(user)
                    break
        return (time.perf_counter() - began) / CALLS

    return run


def decoding() -> Slice:
    """One message decoded by msgspec, all of it."""
    decode, raw = msgspec.json.Decoder().decode, message(SOURCES - 1)

    async def run() -> float:
        began = time.perf_counter()
        for _ in range(CALLS):
            decode(raw)
        return (time.perf_counter() - began) / CALLS

    return run


@dataclass
class Measured:
    """Seconds a message, by what was measured."""

    bare: float
    decoding: float
    last: float
    nobody: float
    twice: float

    @property
    def each_further(self) -> float:
        return (self.twice - self.last) / SOURCES


async def measure(kind: str) -> Measured:
    few, many = router(kind, SOURCES), router(kind, 2 * SOURCES)
    slices = (
        bare(),
        decoding(),
        routed(few, message(SOURCES - 1)),
        routed(few, message(99)),
        routed(many, message(2 * SOURCES - 1)),
    )
    best = [float("inf")] * len(slices)
    for _ in range(SLICES):
        for number, run in enumerate(slices):
            best[number] = min(best[number], await run())
    return Measured(*best)


def show(kind: str, found: Measured) -> None:
    print(f"{SOURCES} sources, {kind}:")
    for what, value, asked in (
        ("the last one matches", f"{1 / found.last:,.0f} messages/s", "at least 60,000"),
        ("  beside a bare loop over lambdas", f"{found.last / found.bare:.1f} times", f"{found.bare * 1e6:.2f} us"),
        ("  beside decoding the message", f"{found.last / found.decoding:.1f} times", f"{found.decoding * 1e6:.2f} us"),
        ("each further source", f"{found.each_further * 1e6:.3f} us", "below 0.3"),
        ("nobody takes it", f"{found.nobody / found.last:.2f} of one that matches", "below 0.67"),
    ):
        print(f"  {what:<36} {value:>26}   ({asked})", flush=True)


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for kind in KINDS:
        show(kind, asyncio.run(measure(kind)))


if __name__ == "__main__":
    main()
