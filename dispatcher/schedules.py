"""Firing schedules: beside a dispatcher of the queue that they feed, or in a process of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dispatcher.callback import Callback
from dispatcher.loop import Dispatcher
from dispatcher.settings import DispatcherSettings
from workqueue.backends import open_queue
from workqueue.backends.url import QueueURL
from workqueue.fallbacks import FullQueue
from workqueue.sources.schedules import Firing, Schedule, ScheduleMetrics, Shelf, schedules_url
from workqueue.sources.schedules.file import read_schedules
from workqueue.sources.schedules.firing import retry_soon

__all__ = ["FIRING", "Schedules"]

FIRING = DispatcherSettings(concurrency=2000, batch_size=1000, backoff=retry_soon)
"""How a dispatcher goes about schedules: many at a time, since most of them tick on the hour, in two steps, so that one
is computed while the other is stored.
"""


@dataclass(frozen=True)
class Schedules:
    """The schedules beside the queue at `url`.

    Args:
        url: the queue that they feed.
        declared: kept before anything fires (see `Shelf.declare`).
        owner: recorded with the schedules that this process fires.
    """

    url: str
    declared: list[Schedule]
    owner: str = ""
    metrics: ScheduleMetrics = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", ScheduleMetrics(QueueURL.parse(self.url).name()))

    @classmethod
    def of(cls, url: str, file: Path | None, owner: str = "") -> Schedules:
        """The schedules beside the queue at `url`, those of a TOML file among them.

        Raises:
            InvalidSettingError: the file cannot be read, or a schedule in it is none.
        """
        return cls(url, read_schedules(file) if file is not None else [], owner)

    @property
    def own_url(self) -> str:
        """The queue that the schedules are in."""
        return schedules_url(self.url)

    @asynccontextmanager
    async def callback(self) -> AsyncIterator[Callback]:
        """What a dispatcher of `own_url` calls."""
        async with open_queue(self.url) as target, open_queue(self.own_url) as schedules:
            await Shelf(schedules).declare(self.declared)
            yield Firing(target, schedules, self.metrics)

    @asynccontextmanager
    async def fired(self, target: FullQueue) -> AsyncIterator[None]:
        """Fire them into `target` until the block ends."""
        async with open_queue(self.own_url, owner=self.owner) as schedules:
            await Shelf(schedules).declare(self.declared)
            async with Dispatcher(schedules, Firing(target, schedules, self.metrics), FIRING):
                yield
