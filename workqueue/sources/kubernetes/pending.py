"""Stage 1: keys on their way from a watch to the queue: each once, those of the highest priority first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice

__all__ = ["Pending"]


class Pending:
    """Keys that wait to be enqueued. While the queue is down they gather here; `room` bounds them.

    A key waits once, however often it changes, so that a queue that is down for an hour costs no more memory than the
    keys there are. Only keys of deleted objects could be more, and for those `room` makes the watches wait.
    """

    def __init__(self) -> None:
        self._lanes: dict[int, dict[str, None]] = {}
        self._some = asyncio.Event()
        self._less = asyncio.Event()

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def add(self, keys: Iterable[str], priority: int) -> None:
        """Let keys wait, with `priority` unless they wait with a higher one."""
        if priority not in self._lanes:
            self._lanes = dict(sorted([*self._lanes.items(), (priority, {})], reverse=True))
        ours = self._lanes[priority]
        for key in keys:
            for at, lane in self._lanes.items():
                if key in lane:
                    if at < priority:
                        del lane[key]
                        ours[key] = None
                    break
            else:
                ours[key] = None
        if len(self):
            self._some.set()

    async def take(self, most: int) -> tuple[Sequence[str], int]:
        """Wait for keys; returns the first, of one priority, with it, and forgets them."""
        await self._some.wait()
        priority, lane = next((priority, lane) for priority, lane in self._lanes.items() if lane)
        taken = list(islice(lane, most))
        for key in taken:
            del lane[key]
        if not len(self):
            self._some.clear()
        self._less.set()
        return taken, priority

    async def room(self, most: int) -> None:
        """Return once no more than `most` keys wait."""
        while len(self) > most:
            self._less.clear()
            await self._less.wait()
