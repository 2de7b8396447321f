"""Callbacks for programs under test."""

from __future__ import annotations

import asyncio

from workqueue.attempt import Attempt


async def complete(key: str, attempt: Attempt) -> None:
    """Does nothing, which is a success."""


async def fail(key: str, attempt: Attempt) -> None:
    raise ValueError(f"no good: {key}")


async def until_released(key: str, attempt: Attempt) -> None:
    """The key is a port: connects to it, which tells that it runs, and ends when the connection does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(key))
    try:
        await reader.read()
    finally:
        writer.close()
