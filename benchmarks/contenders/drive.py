"""Runs one contender in its environment, answers in JSON: `python -m benchmarks.contenders.drive NAME ROLE [COUNT]`.

A contender is a module with `work()`, which does not return, and either coroutines (`ASYNC = True`) or functions:
`opened()`, a context manager that gives what the others get; `one(opened, number)`; and if it has them
`bulk(opened, numbers)`, its fastest way to enqueue many, and `duplicate(opened, number)`, which is refused when queued.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

PRODUCERS = 64
PACE_SECONDS = 0.01


async def produce(contender: Any, opened: Any, numbers: range, verb: Callable[..., Any]) -> None:
    """Enqueue one by one, from as many producers as its kind allows."""
    if not contender.ASYNC:
        for number in numbers:
            verb(opened, number)
        return

    async def producer(first: int) -> None:
        for number in numbers[first::PRODUCERS]:
            await verb(opened, number)

    await asyncio.gather(*(producer(first) for first in range(PRODUCERS)))


async def bulk(contender: Any, opened: Any, numbers: range) -> None:
    result = contender.bulk(opened, numbers)
    if contender.ASYNC:
        await result


async def paced(contender: Any, opened: Any, numbers: range) -> dict[int, int]:
    """One now and then; returns when each was sent."""
    sent = {}
    for number in numbers:
        await asyncio.sleep(PACE_SECONDS)
        sent[number] = time.monotonic_ns()
        result = contender.one(opened, number)
        if contender.ASYNC:
            await result
    return sent


async def timed(step: Coroutine[Any, Any, None]) -> float:
    began = time.perf_counter()
    await step
    return time.perf_counter() - began


async def enqueue(contender: Any, role: str, count: int) -> dict[str, Any]:
    numbers = range(count)
    async with contextlib.AsyncExitStack() as stack:
        context = contender.opened()
        is_async = hasattr(context, "__aenter__")
        opened = await stack.enter_async_context(context) if is_async else stack.enter_context(context)
        if role == "latency":
            return {"sent": await paced(contender, opened, numbers)}
        if role == "bulk" and hasattr(contender, "bulk"):
            return {"seconds": await timed(bulk(contender, opened, numbers))}
        if role == "duplicates":  # nine of ten are queued already
            await produce(contender, opened, range(count // 10), contender.duplicate)
            again = [number % (count // 10) for number in range(count * 9 // 10)]
            step = produce(contender, opened, range(len(again)), lambda o, n: contender.duplicate(o, again[n]))
            return {"seconds": await timed(step), "count": len(again)}
        return {"seconds": await timed(produce(contender, opened, numbers, contender.one))}


def main() -> None:
    name, role, *rest = sys.argv[1:]
    contender = import_module(f"benchmarks.contenders.{name}")
    if role == "work":
        contender.work()
    else:
        print(json.dumps(asyncio.run(enqueue(contender, role, int(rest[0])))))


if __name__ == "__main__":
    main()
