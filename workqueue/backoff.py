"""Stage 6: how long a key waits before its next attempt (pure).

The doubling curve and its numbers are those of the public Go implementation, so that a key waits the same whichever
side runs it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

__all__ = ["BACKOFF_CAP", "BACKOFF_UNIT", "Backoff", "backoff_for", "bare_requeue_delay", "exponential"]

BACKOFF_UNIT = timedelta(seconds=30)
BACKOFF_CAP = timedelta(minutes=10)

Backoff = Callable[[int], timedelta | None]
"""Given the attempts so far (>= 1), the delay before the next one; None or a delay <= 0 means "use the default"."""


def exponential(attempts: int, rand: Callable[[], float] = random.random) -> timedelta:
    """30 s doubling per attempt to 10 min, plus jitter in [0, half of it). `rand` returns a float in [0, 1)."""
    doublings = min(max(attempts, 1) - 1, 16)
    base = min(BACKOFF_UNIT * (1 << doublings), BACKOFF_CAP)
    return base + base * (rand() / 2)


def backoff_for(attempts: int, hook: Backoff | None = None, *, first: timedelta | None = None) -> timedelta:
    """The delay before the next attempt: the hook's when it returns more than zero, else `exponential`.

    `first` is what stands in for `exponential` after a first attempt.
    """
    chosen = hook(attempts) if hook is not None else None
    if chosen is not None and chosen > timedelta(0):
        return chosen
    return exponential(attempts) if first is None or attempts > 1 else first


def bare_requeue_delay(priority: int, attempts: int) -> timedelta:
    """The delay of a `requeue()` without arguments: none at priority <= 0, else attempts x 30 s, at most 10 min.

    A high-priority key that asks to run again would otherwise go straight back to the front and starve the rest.
    """
    return min(BACKOFF_UNIT * attempts, BACKOFF_CAP) if priority > 0 else timedelta(0)
