"""How a key is taken by hand from the owner that runs it, for commands and for the console."""

from __future__ import annotations

from datetime import timedelta

from workqueue.fallbacks import FullQueue
from workqueue.interface import ObservedInProgressKey

__all__ = ["release"]

_TRIES = 5
_JITTER = timedelta(seconds=1)  # of a moment that a backend reckons from two clocks


async def release(queue: FullQueue, observed: ObservedInProgressKey) -> bool:
    """Make a key in progress eligible, attempts kept; False if the attempt that was observed has ended.

    An owner that lives renews its lease every few seconds, which outdates the handle: it is looked for again, so that
    a renewal at the wrong moment, or a slow rate, leaves no key with its owner.
    """
    current: ObservedInProgressKey | None = observed
    for _ in range(_TRIES):
        if current is None or not _is_of_one_attempt(observed, current):
            return False
        if await current.requeue(backoff=timedelta(0)):
            return True
        current = (await queue.find(observed.key)).in_progress
    return False


def _is_of_one_attempt(first: ObservedInProgressKey, second: ObservedInProgressKey) -> bool:
    if (first.owner, first.attempts) != (second.owner, second.attempts):
        return False
    if first.attempt_began is None or second.attempt_began is None:
        return first.attempt_began == second.attempt_began
    return abs(first.attempt_began - second.attempt_began) < _JITTER
