"""Stage 1: where schedules are kept: declared, listed, paused and removed, in a queue beside the one that they feed.

Each verb is one enqueue of the schedule's key. The merge rule does the rest: the newest payload is the definition,
names in meta stay, and of two not-befores the earlier counts. A schedule that is looked at too early finds nothing due.
The next tick is no floor, because a floor can only be moved later: a schedule that is to fire sooner would have to be
taken out first, and a crash before it is put back would lose it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from workqueue.backends.url import url_beside
from workqueue.clock import from_us
from workqueue.errors import KeyNotFoundError, WorkQueueError
from workqueue.fallbacks import FullQueue
from workqueue.interface import KeyStatus
from workqueue.options import Options
from workqueue.sources.schedules.schedule import Schedule, last_tick_us

__all__ = ["Shelf", "Shelved", "schedules_url"]

log = logging.getLogger(__name__)

_MOST = 1_000_000
_SUFFIX = "schedules"


@dataclass(frozen=True, slots=True)
class Shelved:
    """A schedule as it is kept.

    Args:
        schedule: its definition.
        last: its last tick; None = it never fired.
        next: when it fires next; None = it is paused.
        after_us: its ticks after this are to come.
        problem: why the definition cannot be read; then `schedule` is None.
    """

    name: str
    schedule: Schedule | None
    last: datetime | None
    next: datetime | None
    after_us: int = 0
    problem: str = ""


class Shelf:
    """The schedules in `queue`, which is theirs alone (see `schedules_url`)."""

    def __init__(self, queue: FullQueue) -> None:
        self._queue = queue
        self._clock = queue.equipment.clock

    async def declare(self, schedules: Iterable[Schedule]) -> list[str]:
        """Keep these; returns the names of those that are new or changed.

        A schedule that is kept as it is stays untouched: its missed ticks, its phase, and its pause. So a program may
        declare what it needs at each start. A changed one counts from now.
        """
        changed: list[str] = []
        for schedule in schedules:
            kept = await self.read(schedule.name)
            if kept is None or not kept.same_as(schedule):
                await self._keep(replace(schedule, paused=schedule.paused or (kept is not None and kept.paused)))
                changed.append(schedule.name)
                said = "schedule %r is new or changed: key %r, %r in %s"
                log.info(said, schedule.name, schedule.key, schedule.when, schedule.zone, extra={"key": schedule.name})
        return changed

    async def read(self, name: str) -> Schedule | None:
        """The schedule `name`; None if there is none, or it is being removed, or cannot be read."""
        kept = _shelved(name, *await self._newest(name))
        return None if kept is None else kept.schedule

    async def pause(self, name: str) -> None:
        """Fire it no more until `resume`.

        Raises:
            KeyNotFoundError: there is no such schedule.
        """
        await self._keep(replace(await self._existing(name), paused=True))

    async def resume(self, name: str) -> None:
        """Fire it again, from now on: ticks during the pause are not missed.

        Raises:
            KeyNotFoundError: there is no such schedule.
        """
        kept = await self._existing(name)
        if kept.paused:
            await self._keep(replace(kept, paused=False))

    async def remove(self, name: str) -> bool:
        """Remove it; returns whether it was there. One that is being fired goes when that is done."""
        found = await self._queue.find(name)
        if found.queued is None and found.in_progress is None and found.dead_letter is None:
            return False
        if found.dead_letter is not None:
            await found.dead_letter.drop()
        alone = found.queued is not None and found.in_progress is None
        if alone and found.queued is not None and await found.queued.drop():
            return True
        # It is being fired, and would come back: whoever fires it next finds that it is to go.
        tombstone = Schedule(name, "@yearly", "removed", removed=True, since_us=self._clock.wall_us())
        await self._queue.queue(name, Options(payload=tombstone.to_payload()))
        return True

    async def listing(self) -> list[Shelved]:
        """Every schedule, by name."""
        snapshot = await self._queue.enumerate(_MOST)
        waiting = [*snapshot.queued, *snapshot.twins, *await self._queue.delayed(_MOST)]
        found = {key.key: _shelved(key.key, key.payload, key.meta) for key in waiting if key.payload is not None}
        for running in snapshot.in_progress:
            if running.key not in found:
                found[running.key] = _shelved(running.key, *await self._newest(running.key))
        return sorted((kept for kept in found.values() if kept is not None), key=lambda kept: kept.name)

    async def run_now(self, name: str, target: FullQueue) -> Schedule:
        """Enqueue the key of the schedule `name` now. Its ticks stay what they are.

        Raises:
            KeyNotFoundError: there is no such schedule.
        """
        schedule = await self._existing(name)
        await target.queue(schedule.key, schedule.options(self._clock.wall_us()))
        return schedule

    async def _existing(self, name: str) -> Schedule:
        schedule = await self.read(name)
        if schedule is None:
            raise KeyNotFoundError(f"there is no schedule {name!r}")
        return schedule

    async def _newest(self, name: str) -> tuple[bytes | None, Mapping[str, str]]:
        """The payload and meta that merging would leave: those queued over those in progress."""
        queued = (await self._queue.find(name)).queued
        if queued is not None and queued.payload is not None:
            return queued.payload, queued.meta
        try:
            state = await self._queue.get(name)
        except KeyNotFoundError:
            return None, {}
        if state.status not in (KeyStatus.QUEUED, KeyStatus.IN_PROGRESS):
            return None, {}
        return state.payload, {**state.meta, **(queued.meta if queued is not None else {})}

    async def _keep(self, schedule: Schedule) -> None:
        now_us = self._clock.wall_us()
        kept = replace(schedule, since_us=now_us)
        first = next(kept.firings(now_us), None)
        await self._queue.queue(kept.name, Options(not_before=first, payload=kept.to_payload()))


def _shelved(name: str, payload: bytes | None, meta: Mapping[str, str]) -> Shelved | None:
    if payload is None:
        return None
    last = last_tick_us(meta)
    try:
        schedule = Schedule.from_payload(name, payload)
    except WorkQueueError as error:
        return Shelved(name, None, from_us(last) if last else None, None, problem=str(error))
    if schedule.removed:
        return None
    after_us = max(last, schedule.since_us)
    coming = None if schedule.paused else next(schedule.firings(after_us), None)
    return Shelved(name, schedule, from_us(last) if last else None, coming, after_us)


def schedules_url(url: str) -> str:
    """The URL of the queue of schedules beside the queue at `url`: that with `schedules` at its name or prefix.

    Raises:
        InvalidSettingError: the name would be longer than a name may be.
    """
    return url_beside(url, _SUFFIX)
