"""Runs one contender in its environment, answers in JSON: `python -m benchmarks.contenders.drive NAME ROLE [COUNT]`.

A contender is a module with `work()`, which does not return, and either coroutines (`ASYNC = True`) or functions:
`opened()`, a context manager that gives what the others get; `one(opened, number)`; and if it has them
`bulk(opened, numbers)`, its fastest way to enqueue many, and `duplicate(opened, number)`, which is refused when queued.
Functions are called from `THREADS` threads at once, as many as are fastest for it; coroutines from 64 producers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module, metadata
from typing import Any

PRODUCERS = 64
PACE_SECONDS = 0.01
WARM_UP = 20
COPIES = 10


async def produce(contender: Any, opened: Any, numbers: Sequence[int], verb: Callable[..., Any]) -> None:
    """Enqueue one by one, from many producers at once."""
    if not contender.ASYNC:
        await asyncio.to_thread(produce_in_threads, contender.THREADS, opened, numbers, verb)
        return

    async def producer(first: int) -> None:
        for number in numbers[first::PRODUCERS]:
            await verb(opened, number)

    await asyncio.gather(*(producer(first) for first in range(PRODUCERS)))


def produce_in_threads(threads: int, opened: Any, numbers: Sequence[int], verb: Callable[..., Any]) -> None:
    def producer(first: int) -> None:
        for number in numbers[first::threads]:
            verb(opened, number)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(producer, range(threads)))


async def bulk(contender: Any, opened: Any, numbers: Sequence[int]) -> None:
    """Enqueue many in its fastest way, which for most is one by one."""
    if not hasattr(contender, "bulk"):
        await produce(contender, opened, numbers, contender.one)
    elif contender.ASYNC:
        await contender.bulk(opened, numbers)
    else:
        contender.bulk(opened, numbers)


async def paced(contender: Any, opened: Any, count: int) -> dict[int, int]:
    """One now and then; returns when each was sent, but for the first `WARM_UP`."""
    sent = {}
    for number in range(WARM_UP + count):
        await asyncio.sleep(PACE_SECONDS)
        sent[number] = time.monotonic_ns()
        result = contender.one(opened, number)
        if contender.ASYNC:
            await result
    return {number: at for number, at in sent.items() if number >= WARM_UP}


async def timed(step: Coroutine[Any, Any, None]) -> dict[str, float]:
    began = time.perf_counter()
    await step
    return {"seconds": time.perf_counter() - began}


def duplicates(count: int) -> list[int]:
    """Each number ten times, in random order: nine of ten are queued already when they come."""
    numbers = list(range(count // COPIES)) * COPIES
    random.Random(1).shuffle(numbers)
    return numbers


async def enqueue(contender: Any, role: str, count: int) -> dict[str, Any]:
    async with contextlib.AsyncExitStack() as stack:
        context = contender.opened()
        is_async = hasattr(context, "__aenter__")
        opened = await stack.enter_async_context(context) if is_async else stack.enter_context(context)
        if role == "latency":
            return {"sent": await paced(contender, opened, count)}
        if role == "bulk":
            return await timed(bulk(contender, opened, range(count)))
        if role == "duplicates":
            return await timed(produce(contender, opened, duplicates(count), contender.duplicate))
        if role == "bulk-duplicates":
            return await timed(bulk(contender, opened, duplicates(count)))
        return await timed(produce(contender, opened, range(count), contender.one))


def run(step: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """On uvloop where the environment has it, as in the worker."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(step)
    return uvloop.run(step)


def versions() -> dict[str, str]:
    """What is installed in this environment."""
    return {found.metadata["Name"]: found.version for found in metadata.distributions()}


def main() -> None:
    name, role, *rest = sys.argv[1:]
    if role == "versions":
        print(json.dumps(versions()))
        return
    contender = import_module(f"benchmarks.contenders.{name}")
    if role == "work":
        contender.work()
    else:
        print(json.dumps(run(enqueue(contender, role, int(rest[0])))))


if __name__ == "__main__":
    main()
