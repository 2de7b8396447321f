"""Stage 2: the futures that carry a store's answers, looked at by who does not await them."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["ignore", "is_answered"]


def is_answered(future: asyncio.Future[Any]) -> bool:
    """Whether there is an answer, and no error in its place. Looked at, the error is none that asyncio reports."""
    return not future.cancelled() and future.exception() is None


def ignore(future: asyncio.Future[Any]) -> None:
    """A done callback for what nobody awaits: its error is looked at, so that asyncio does not report it."""
    is_answered(future)
