"""For the tests of schedules: a target and its schedules on one fake clock, and the dispatcher that fires them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dispatcher import Dispatcher, DispatcherSettings
from tests.support.dispatching import pass_time, running, settle_down
from workqueue import Options
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.clock import to_us
from workqueue.sources.schedules import Firing, Shelf
from workqueue.sources.schedules.firing import retry_soon
from workqueue.testing import FakeClock, FlakyQueue

__all__ = ["NOON", "Recorded", "Scheduled", "scheduled"]

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SETTINGS = DispatcherSettings(concurrency=100, backoff=retry_soon)


class Recorded(MemoryQueue):
    """A target that notes what it was sent, and when."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__("builds", clock=clock)
        self.sent: list[tuple[str, str]] = []
        """Minutes and seconds since noon, and the key."""

    async def queue(self, key: str, options: Options = Options()) -> None:
        await super().queue(key, options)
        self._note(key)

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        stored = list(items)
        await super().queue_many(stored)
        for key, _ in stored:
            self._note(key)

    def _note(self, key: str) -> None:
        seconds = (self.clock.wall_us() - to_us(NOON)) // 1_000_000
        self.sent.append((f"{seconds // 60}:{seconds % 60:02}", key))


@dataclass
class Scheduled:
    """A target, the queue of its schedules, and everything on one clock."""

    clock: FakeClock
    target: Recorded
    schedules: FlakyQueue
    shelf: Shelf
    firing: Firing

    @asynccontextmanager
    async def dispatched(self) -> AsyncIterator[None]:
        """Fire what is due until the block ends."""
        async with running(Dispatcher(self.schedules, self.firing, SETTINGS)):
            yield

    async def passes(self, minutes: float, step: timedelta = timedelta(seconds=1)) -> None:
        await pass_time(self.target, timedelta(minutes=minutes), step)

    async def settled(self) -> None:
        await settle_down()

    @property
    def fired(self) -> list[str]:
        return [when for when, _ in self.target.sent]

    async def names(self) -> Iterable[str]:
        return [kept.name for kept in await self.shelf.listing()]


@asynccontextmanager
async def scheduled() -> AsyncIterator[Scheduled]:
    clock = FakeClock(to_us(NOON))
    target, schedules = Recorded(clock), FlakyQueue(MemoryQueue("builds.schedules", clock=clock))
    async with target, schedules:
        yield Scheduled(clock, target, schedules, Shelf(schedules), Firing(target, schedules))
