"""What a no-op writes down, the same in every contender: which one it was, and when; 16 bytes in one write.

Needs nothing but the standard library, since each contender runs in a virtual environment of its own.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from pathlib import Path

__all__ = ["AGAIN", "ENDED", "PAUSE_SECONDS", "REDIS_URL", "Entry", "read", "run", "run_async", "write"]

_ENTRY = struct.Struct("=QQ")
ENDED = 1 << 63
"""Added to the number when it ended and not when it began."""

AGAIN = 1 << 62
"""Added when it began, if that was not the first attempt and who runs it knows."""

REDIS_URL = os.environ.get("BENCHMARK_REDIS", "redis://localhost:6379/0")
PAUSE_SECONDS = float(os.environ.get("BENCHMARK_PAUSE", "0"))
"""How long each takes; 0 = a no-op, which writes only that it began."""

Entry = tuple[int, int]

_file = os.open(os.environ.get("BENCHMARK_JOURNAL", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def write(number: int) -> None:
    """This one begins, or ends, now."""
    os.write(_file, _ENTRY.pack(number, time.monotonic_ns()))


def run(number: int) -> None:
    """What a contender's function does, in a thread."""
    write(number)
    if PAUSE_SECONDS:
        time.sleep(PAUSE_SECONDS)
        write(number | ENDED)


async def run_async(number: int) -> None:
    """The same on an event loop."""
    write(number)
    if PAUSE_SECONDS:
        await asyncio.sleep(PAUSE_SECONDS)
        write(number | ENDED)


def read(path: Path) -> list[Entry]:
    """Numbers and nanoseconds."""
    return list(_ENTRY.iter_unpack(path.read_bytes())) if path.exists() else []
