"""Stage 1: keys from a Kubernetes API server: several watches into one queue, with a resync spread over its period."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from workqueue.clock import Clock, SystemClock, duration_us
from workqueue.errors import InvalidSettingError, StoreError
from workqueue.options import Options
from workqueue.sources.kubernetes.api import API
from workqueue.sources.kubernetes.cache import Cache, Replica
from workqueue.sources.kubernetes.pending import Pending
from workqueue.sources.kubernetes.reflector import Changed, Reflector
from workqueue.sources.kubernetes.watches import Watch
from workqueue.sources.resync import BACKGROUND_PRIORITY, Enqueues, place

__all__ = ["KubernetesSource"]

log = logging.getLogger(__name__)

_BATCH = 500
_SLACK = 1000  # how many more keys than objects may wait for the queue
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0
_STEPS = 1000  # a resync moves on this often in a period, and at most once a second


class KubernetesSource:
    """Enqueues the keys of what changes, and each key once per `resync` period.

    Run it once at a time for each queue (see `Elector`); two do no harm but double the load on the API server.

    Args:
        api: the API server.
        watches: what to watch.
        queue: where the keys go.
        resync: enqueue every key that some object stands for once in this time, at an even pace; None = never.
        background_priority: of keys of which nobody knows that anything changed: those of the first list, which has
            everything, and of the resync.
        clock: where time comes from.

    Raises:
        InvalidSettingError: a value is none that it can have.
    """

    def __init__(
        self,
        api: API,
        watches: Sequence[Watch],
        queue: Enqueues,
        *,
        resync: timedelta | None = None,
        background_priority: int = BACKGROUND_PRIORITY,
        clock: Clock | None = None,
    ) -> None:
        if not watches:
            raise InvalidSettingError("a Kubernetes source needs something to watch")
        if resync is not None and resync < timedelta(seconds=1):
            raise InvalidSettingError(f"a resync period is a second or more, not {resync}")
        self._queue = queue
        self._background = background_priority
        self._period_us = 0 if resync is None else duration_us(resync)
        self._clock = clock or SystemClock()
        self._pending = Pending()
        self._on_their_way = 0
        self._synced = asyncio.Event()
        self._replicas = {watch: Replica(watch) for watch in watches}
        self._reflectors = [
            Reflector(api, replica, self._noting(watch), self._room, self._clock)
            for watch, replica in self._replicas.items()
        ]

    async def run(self) -> None:
        """Watch and enqueue until cancelled. What is not enqueued by then is found by the next one's first list."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())
            group.create_task(self._enqueue())
            if self._period_us:
                group.create_task(self._resync())

    async def synced(self) -> None:
        """Return once every watch has listed its objects, so that the caches are complete."""
        await self._synced.wait()

    @property
    def ready(self) -> bool:
        """Whether every watch has listed its objects."""
        return self._synced.is_set()

    @property
    def waiting(self) -> int:
        """How many keys are not stored yet; more than a few means that the queue is slow or down."""
        return len(self._pending) + self._on_their_way

    def cache(self, watch: Watch) -> Cache:
        """What is known of the objects of one of the watches."""
        return Cache(self._replicas[watch])

    def _noting(self, watch: Watch) -> Changed:
        def changed(keys: Sequence[str], first: bool) -> None:
            self._pending.add(keys, self._background if first else watch.priority)
            if not self._synced.is_set() and all(replica.synced for replica in self._replicas.values()):
                self._synced.set()

        return changed

    async def _room(self) -> None:
        await self._pending.room(sum(map(len, self._replicas.values())) + _SLACK)

    async def _enqueue(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            keys, priority = await self._pending.take(_BATCH)
            self._on_their_way = len(keys)
            try:
                options = Options(priority=priority)
                await self._queue.queue_many([(key, options) for key in keys])
                pause, self._on_their_way = _FIRST_PAUSE_SECONDS, 0
            except StoreError as error:
                self._pending.add(keys, priority)
                self._on_their_way = 0
                log.warning("%d keys wait for the queue, next try in %.0f s: %s", self.waiting, pause, error)
                await self._clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _resync(self) -> None:
        """Enqueue every key once per period, each at its place in it."""
        await self._synced.wait()
        now_us = self._clock.wall_us()
        over_us = now_us % self._period_us
        while True:
            period = now_us // self._period_us
            turns = await self._turns(period, over_us)
            over_us = 0
            while now_us // self._period_us == period:
                await self._clock.sleep(max(self._period_us / _STEPS, 1e6) / 1e6)
                now_us = self._clock.wall_us()
                passed_us = now_us - period * self._period_us
                while turns and turns[-1][0] <= passed_us:
                    self._pending.add((turns.pop()[1],), self._background)
                await self._room()

    async def _turns(self, period: int, over_us: int) -> list[tuple[int, str]]:
        """When in a period the keys have their turns, the first one last; those before `over_us` are over."""
        turns: list[tuple[int, str]] = []
        for replica in self._replicas.values():
            for number, key in enumerate(dict.fromkeys(replica.keys())):
                if number % _BATCH == 0:
                    await asyncio.sleep(0)
                turn_us = place(key, period) * self._period_us >> 64
                if turn_us >= over_us:
                    turns.append((turn_us, key))
        return sorted(set(turns), reverse=True)
