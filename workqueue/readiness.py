"""Whether what is behind a server works, such as its store: asked when somebody wants to know, and not too often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from workqueue.clock import Clock, SystemClock
from workqueue.errors import KeyNotFoundError, WorkQueueError
from workqueue.interface import KeyState
from workqueue.safe_text import describe

__all__ = ["NO_KEY", "Readiness", "any_of", "of_store"]

log = logging.getLogger(__name__)

_LASTS_US = 5_000_000
_PATIENCE_SECONDS = 3.0
NO_KEY = "readiness-probe"
"""What is looked up in a store to see whether it answers; nobody has such a key."""


class Readiness:
    """Asks once for all who want to know within five seconds.

    Args:
        ask: finds out what is wrong, '' if nothing is; the log has it.
        shown: what strangers read instead, who should learn of no address.
        clock: says how old an answer is.
    """

    def __init__(self, ask: Callable[[], Awaitable[str]], shown: str, clock: Clock | None = None) -> None:
        self._ask = ask
        self._shown = shown
        self._clock: Clock = clock or SystemClock()
        self._lock = asyncio.Lock()
        self._found = ""
        self._valid_until_us = 0

    async def why_unready(self) -> str:
        """Why calls are not welcome, in words that name no address; '' if they are."""
        async with self._lock:
            if self._clock.steady_us() >= self._valid_until_us:
                self._note(await self._ask())
                self._valid_until_us = self._clock.steady_us() + _LASTS_US
        return self._found

    def _note(self, trouble: str) -> None:
        if trouble and not self._found:
            log.warning("not ready: %s", trouble)
        elif self._found and not trouble:
            log.info("ready again")
        self._found = self._shown if trouble else ""


class _Store(Protocol):
    """A queue, or a client of a receiver."""

    async def get(self, key: str) -> KeyState: ...


def of_store(queue: _Store, clock: Clock | None = None) -> Readiness:
    """Whether the store of `queue` answers; a key is looked up that need not be there."""

    async def ask() -> str:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await queue.get(NO_KEY)
        except KeyNotFoundError:
            return ""
        except TimeoutError:
            return f"the store does not answer within {_PATIENCE_SECONDS:g} s"
        except WorkQueueError as error:
            return describe(error)
        return ""

    return Readiness(ask, "the store does not work; the log says why", clock)


def any_of(parts: Sequence[Readiness]) -> Callable[[], Awaitable[str]]:
    """Why none of `parts` works; '' as soon as one is known to, since the others fail only what is theirs."""
    asking: set[asyncio.Task[str]] = set()

    async def why_unready() -> str:
        found = ""
        tries = [asyncio.create_task(part.why_unready()) for part in parts]
        for each in tries:  # one that takes its time is not waited for, and answers for itself later
            asking.add(each)
            each.add_done_callback(asking.discard)
        for answer in asyncio.as_completed(tries):
            if not (found := await answer):
                break
        return found

    return why_unready
