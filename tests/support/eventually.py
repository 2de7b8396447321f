"""For tests of processes that say nothing when they are ready: looking again until it is so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["eventually"]

T = TypeVar("T")


def eventually(what: str, found: Callable[[], T], seconds: float = 90) -> T:
    """What `found` gives once it is true; it is asked every tenth of a second.

    Raises:
        AssertionError: it was not within `seconds`.
    """
    until = time.monotonic() + seconds
    while True:
        it = found()
        if it:
            return it
        assert time.monotonic() < until, f"{what}: not within {seconds} s"
        time.sleep(0.1)
