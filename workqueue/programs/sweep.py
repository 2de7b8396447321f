"""For programs: one verb over many keys, paced, some at a time, with an account of what was done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from workqueue.clock import Clock, SystemClock
from workqueue.errors import StoreError
from workqueue.programs import printing
from workqueue.programs.ending import FAILED
from workqueue.programs.progress import Advance, unseen
from workqueue.programs.settings import OutputFlags

__all__ = ["Act", "Report", "sweep"]

_AT_ONCE = 64  # enough for stores that commit or travel in groups

Act = Callable[[], Awaitable[str]]
"""Do it to one key; returns '' or why it was not done."""


@dataclass(slots=True)
class Report:
    """Which keys it was done to, and why it was not done to others; `error` is the store's, if that ended it early."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    error: StoreError | None = None

    def show(self, verb: str, output: OutputFlags) -> int:
        """Write it to stdout, what failed to stderr; returns the exit code.

        Raises:
            StoreError: the one that ended it early.
        """
        with printing.done():
            if output.json:
                printing.document({verb: self.done, "failed": self.failed})
            else:
                printing.note(f"{verb} {len(self.done)}")
        if not output.json:
            printing.complaints(f"{key}: {reason}" for key, reason in self.failed.items())
        if self.error is not None:
            raise self.error
        return FAILED if self.failed else 0


async def sweep(
    acts: AsyncIterator[tuple[str, Act]],
    rate: float | None = None,
    clock: Clock | None = None,
    advance: Advance = unseen,
) -> Report:
    """Do `acts`, each with its key, at most `rate` a second; stops at the first error of the store.

    Args:
        acts: what to do, and to which key.
        rate: at most this many a second; None = no limit.
        clock: where time comes from.
        advance: called as each is done, or not done.
    """
    report, slots = Report(), asyncio.Semaphore(_AT_ONCE)

    def ended(_: object) -> None:
        slots.release()
        advance(1)

    async with asyncio.TaskGroup() as group:
        async for key, act in _paced(acts, rate, clock or SystemClock()):
            await slots.acquire()
            if report.error is not None:
                break
            group.create_task(_one(key, act, report)).add_done_callback(ended)
    return report


async def _paced(
    acts: AsyncIterator[tuple[str, Act]], rate: float | None, clock: Clock
) -> AsyncIterator[tuple[str, Act]]:
    next_us = clock.steady_us()
    async for each in acts:
        wait_us = next_us - clock.steady_us()
        if wait_us > 0:
            await clock.sleep(wait_us / 1e6)
        next_us = max(next_us, clock.steady_us()) + (int(1e6 / rate) if rate else 0)
        yield each


async def _one(key: str, act: Act, report: Report) -> None:
    try:
        reason = await act()
    except StoreError as error:
        report.error = error
        return
    if reason:
        report.failed[key] = reason
    else:
        report.done.append(key)
