"""Callbacks of the Kubernetes room; they run in Pods, from the image that is this checkout."""

from __future__ import annotations

import asyncio
import os

import redis.asyncio

from dispatcher import Attempt

__all__ = ["complete", "every_key", "recorded"]


async def complete(key: str, attempt: Attempt) -> None:
    """Nothing to do."""


async def recorded(key: str, attempt: Attempt) -> None:
    """Work for a moment, then say in the ledger which key ran, and at which attempt."""
    await asyncio.sleep(0.2)
    async with redis.asyncio.from_url(os.environ["LEDGER_URL"]) as ledger:
        await ledger.rpush("ledger", f"{attempt.attempts} {key}")


def every_key() -> list[str]:
    """What a resync enqueues."""
    return ["again"]
