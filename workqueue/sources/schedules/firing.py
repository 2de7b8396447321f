"""Stage 1: firing: what a dispatcher calls for the keys of a schedules' queue.

    async with Dispatcher(schedules, Firing(target, schedules), DispatcherSettings(backoff=retry_soon)): ...

The order of the steps makes a crash between any two of them harmless. First the user's key is stored, then the tick is
noted and the next one set, by an enqueue of the schedule's own key; last the lease is given back. A crash after the
first step fires the same tick again, which merges with the key while that still waits. No step is written from what an
earlier read: who redefines a schedule while it fires changes its payload, and firing only its meta and not-before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

from workqueue.attempt import Attempt
from workqueue.clock import from_us
from workqueue.equipment import Equipment
from workqueue.errors import NonRetriableError
from workqueue.interface import KeyStatus, WorkQueue
from workqueue.metric_table import BUCKETS
from workqueue.metrics import Histogram
from workqueue.optional import SearchableQueue, offers
from workqueue.outcomes import RequeueAfter
from workqueue.sources.schedules.gathered import Gathered, Keys
from workqueue.sources.schedules.schedule import Due, Schedule, due, last_tick_us, noted
from workqueue.telemetry.samples import Sample

__all__ = ["Firing", "ScheduleMetrics", "retry_soon"]

log = logging.getLogger(__name__)

_IDLE = timedelta(days=1)  # how often a schedule that does not fire is looked at
_SOON = timedelta(seconds=1)


def retry_soon(attempts: int) -> timedelta:
    """The backoff of schedules, as a dispatcher takes it: 1 s doubling to 1 min. A tick is wanted soon or never."""
    return min(timedelta(seconds=1) * (1 << min(max(attempts, 1) - 1, 6)), timedelta(minutes=1))


class ScheduleMetrics:
    """What schedules count. `name` is that of the queue that they feed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fired = 0
        self.missed = 0
        self.lateness = Histogram(BUCKETS["schedule_lateness"])

    def samples(self) -> Iterator[Sample]:
        """For `Exposition(sources=[metrics])`."""
        yield "workqueue_schedule_firings_total", (), self.fired
        yield "workqueue_schedule_missed_ticks_total", (), self.missed
        yield "workqueue_schedule_lateness_seconds", (), [self.lateness]


class Firing:
    """The callback that fires schedules: `Dispatcher(schedules, Firing(target, schedules))`.

    Args:
        target: where the users' keys go.
        schedules: the queue of the schedules, which the dispatcher runs on.
        metrics: where to count, if somebody else counts there too.
    """

    def __init__(self, target: Keys, schedules: WorkQueue, metrics: ScheduleMetrics | None = None) -> None:
        self.metrics = metrics or ScheduleMetrics(Equipment.of(target).name)
        self._target = target
        self._fed, self._noted = Gathered(target), Gathered(schedules)
        self._clock = Equipment.of(schedules).clock

    async def __call__(self, name: str, attempt: Attempt) -> RequeueAfter | None:
        """Fire what is due of the schedule `name`, and say when to look again."""
        if attempt.payload is None:
            raise NonRetriableError(f"the key {name!r} in a queue of schedules has no definition, and is dropped")
        schedule = Schedule.from_payload(name, attempt.payload)
        if schedule.removed:
            return None
        if schedule.paused:
            return RequeueAfter(_IDLE)
        last_us = max(schedule.since_us, last_tick_us(attempt.meta))
        now_us = self._clock.wall_us()
        decided = due(schedule, schedule.ticks(), last_us, now_us, begun=attempt.attempts > 1)
        if decided.tick_us is not None and schedule.missed == "all" and await self._still_queued(schedule.key):
            return RequeueAfter(_SOON)  # it would be merged, and the tick before would have no run of its own
        await self._fire(schedule, decided, last_us)
        return self._look_again(decided.look_us)

    async def _fire(self, schedule: Schedule, decided: Due, last_us: int) -> None:
        if decided.tick_us is not None:
            await self._fed.queue(schedule.key, schedule.options(decided.tick_us))
            self._count(schedule, decided.tick_us)
            if log.isEnabledFor(logging.INFO):
                self._log(schedule, decided.tick_us, decided.look_us)
        if decided.missed:
            self.metrics.missed += decided.missed
            log.warning("schedule %r missed %d ticks", schedule.name, decided.missed, extra={"key": schedule.name})
        if decided.last_us != last_us:
            await self._noted.queue(schedule.name, noted(decided.last_us, decided.look_us))

    def _count(self, schedule: Schedule, tick_us: int) -> None:
        self.metrics.fired += 1
        self.metrics.lateness.observe(self._clock.wall_us() - schedule.fires_us(tick_us))

    def _log(self, schedule: Schedule, tick_us: int, look_us: int | None) -> None:
        tick, then = from_us(tick_us), "never again" if look_us is None else f"next at {from_us(look_us)}"
        extra = {"key": schedule.name, "queue": self.metrics.name}
        log.info("schedule %r enqueued key %r for %s, %s", schedule.name, schedule.key, tick, then, extra=extra)

    def _look_again(self, look_us: int | None) -> RequeueAfter:
        if look_us is None:
            return RequeueAfter(_IDLE)
        return RequeueAfter(timedelta(microseconds=max(look_us - self._clock.wall_us(), 1)))

    async def _still_queued(self, key: str) -> bool:
        if offers(self._target, SearchableQueue):
            return (await self._target.find(key)).queued is not None
        if not offers(self._target, WorkQueue):
            return False
        try:
            return (await self._target.get(key)).status == KeyStatus.QUEUED
        except LookupError:
            return False
