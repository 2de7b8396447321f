"""What processes do with the time: compute, wait for a core that others have, or sleep; as the kernel counts it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

__all__ = ["Count", "Shares", "cores_idle", "count", "saturation", "shares"]

FULL = 0.9  # of a core; the rest goes to switching, and to who counts


@dataclass(frozen=True)
class Count:
    """Of the main thread of a process, so far; seconds. `sleeps` is how often it had nothing to do."""

    at: float
    ran: float
    waited: float
    sleeps: int


@dataclass(frozen=True)
class Shares:
    """Of the time between two counts; `each_us` is how long a sleep takes."""

    computes: float
    waits: float
    sleeps_a_second: float

    @property
    def asleep(self) -> float:
        return max(1 - self.computes - self.waits, 0.0)

    @property
    def each_us(self) -> float:
        return self.asleep / self.sleeps_a_second * 1e6 if self.sleeps_a_second else 0.0

    def __str__(self) -> str:
        return (
            f"computes {self.computes:.0%}, waits for its core {self.waits:.0%}, "
            f"asleep {self.asleep:.0%}: {self.sleeps_a_second:,.0f} times a second, {self.each_us:,.0f} µs each"
        )


def count(pid: int) -> Count:
    """What the process has done so far; exact when it is not running."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Count(time.monotonic(), int(ran) / 1e9, int(waited) / 1e9, int(status["voluntary_ctxt_switches"]))


def shares(before: Sequence[Count], after: Sequence[Count]) -> Shares:
    """The means over some processes."""
    pairs = [(then, now, now.at - then.at) for then, now in zip(before, after, strict=True)]
    return Shares(
        computes=mean((now.ran - then.ran) / seconds for then, now, seconds in pairs),
        waits=mean((now.waited - then.waited) / seconds for then, now, seconds in pairs),
        sleeps_a_second=mean((now.sleeps - then.sleeps) / seconds for then, now, seconds in pairs),
    )


def cores_idle(cores: Iterable[int]) -> float:
    """Seconds for which these cores, added up, had nothing to do, so far; to a hundredth."""
    lines = dict(line.split(maxsplit=1) for line in Path("/proc/stat").read_text().splitlines())
    idle = sum(sum(map(int, lines[f"cpu{core}"].split()[3:5])) for core in cores)
    return idle / os.sysconf("SC_CLK_TCK")


def saturation(rate: float, redis: Shares, theirs: float, idle: float) -> str:
    """What is full, and what it would take to fill Redis.

    Args:
        rate: keys a second.
        redis: what it did on its core.
        theirs: how many cores the dispatchers used.
        idle: the share of the dispatchers' cores that nobody used.
    """
    if redis.computes >= FULL:
        full = "full: Redis's core"
    elif idle <= 1 - FULL:
        full = f"full: the dispatchers' core, {1 - idle:.0%}, they use {theirs:.2f}"
    else:
        full = f"nothing is full: they wait for each other, and their core is idle {idle:.0%}"
    would = f"it would be full at {rate / redis.computes:,.0f}/s and {theirs / redis.computes:.1f} cores of dispatchers"
    return f"{rate:,.0f}/s; {full}; Redis's {redis.computes:.0%}: {would}"
