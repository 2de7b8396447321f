"""For programs: one verb over many keys, with an account of what was done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from workqueue import sweeping
from workqueue.clock import Clock
from workqueue.errors import StoreError
from workqueue.programs import printing
from workqueue.programs.ending import FAILED
from workqueue.programs.progress import Advance, unseen
from workqueue.programs.settings import OutputFlags
from workqueue.sweeping import Act

__all__ = ["Report", "sweep"]


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
    report = Report()

    def count(key: str, reason: str) -> None:
        if reason:
            report.failed[key] = reason
        else:
            report.done.append(key)
        advance(1)

    try:
        await sweeping.sweep(acts, count, rate=rate, clock=clock)
    except StoreError as error:
        report.error = error
    return report
