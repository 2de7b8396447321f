"""What a queued key weighs in memory, and what importing costs.

`python -m benchmarks.size`
"""

from __future__ import annotations

import asyncio
import gc
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from workqueue.backends.memory.backend import MemoryQueue

KEYS = 500_000
IMPORTS = 9


async def bytes_per_key() -> float:
    """Resident bytes a queued key of 24 characters takes, its string included."""
    async with MemoryQueue() as queue:
        gc.collect()
        before = _resident_bytes()
        for number in range(KEYS):
            await queue.queue(f"key-{number:020}")
        gc.collect()
        return (_resident_bytes() - before) / KEYS


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def import_seconds(module: str) -> float:
    """The median time that a fresh interpreter takes to import `module`, beyond an interpreter that imports nothing."""
    return statistics.median(_run(f"import {module}") for _ in range(IMPORTS)) - statistics.median(
        _run("pass") for _ in range(IMPORTS)
    )


def _run(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    print(f"memory queue: {asyncio.run(bytes_per_key()):.0f} bytes a queued key of 24 characters (under 600 asked)")
    print(f"import workqueue: {import_seconds('workqueue') * 1000:.0f} ms (under 200 asked); asyncio alone:", end=" ")
    print(f"{import_seconds('asyncio') * 1000:.0f} ms")


if __name__ == "__main__":
    main()
