"""What dispatchers call while alerts are made to fire."""

from __future__ import annotations

import asyncio

from workqueue.attempt import Attempt

__all__ = ["complete", "fail", "hang", "run_away"]


async def complete(key: str, attempt: Attempt) -> None:
    """Nothing to do."""


async def fail(key: str, attempt: Attempt) -> None:
    """What a bug does, each time."""
    raise ValueError(f"no good: {key}")


async def hang(key: str, attempt: Attempt) -> None:
    """Never end, but do as a cancellation says."""
    await asyncio.Event().wait()


async def run_away(key: str, attempt: Attempt) -> None:
    """Swallow every cancellation."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
