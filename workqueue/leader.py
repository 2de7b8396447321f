"""Stage 1: one process at a time: the election of a leader by a lease that it renews, for sources.

Two sources that watch the same thing would do no harm, since their enqueues merge, but twice the work. A dispatcher
needs no election: each key has a lease of its own, which is finer and exact.

Three rules make it correct. Nobody's wall clock is compared with anybody else's: a lease has lapsed when *I* have seen
it unchanged for as long as it says. The leader counts from when its last successful renewal was *sent*, and stops its
work a third of the lease before the others may take over, whether or not the store can be reached. Every write is
conditional on the version that was read, so that of two who take a lapsed lease one gets it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

from workqueue.clock import Clock, SystemClock, duration_us, within
from workqueue.errors import InvalidSettingError, StoreError

__all__ = ["ElectionTimes", "Elector", "LeaderLease", "LeaseStore"]

log = logging.getLogger(__name__)

_RELEASED_SECONDS = 1  # what a released lease says of itself, for clients that do not look at its holder


@dataclass(frozen=True, slots=True)
class ElectionTimes:
    """How long a leader may be silent, in whole seconds where others read it.

    Args:
        lease: the others take over when they have seen no renewal for this time.
        deadline: the leader stops its work when its last renewal was sent this long ago. What is between this and
            `lease` is the time that the work has to stop.
        retry: how often the lease is renewed, and looked at by the others.

    Raises:
        InvalidSettingError: they do not leave each other room: retry < deadline < lease.
    """

    lease: timedelta = timedelta(seconds=15)
    deadline: timedelta = timedelta(seconds=10)
    retry: timedelta = timedelta(seconds=2)

    def __post_init__(self) -> None:
        if not timedelta(0) < self.retry * 2 <= self.deadline < self.lease or self.lease < timedelta(seconds=1):
            raise InvalidSettingError(
                f"an election has two retries ({self.retry}) within its deadline ({self.deadline}), "
                f"and that is shorter than its lease ({self.lease})"
            )


@dataclass(frozen=True, slots=True)
class LeaderLease:
    """The lease as stored. `holder` '' means that it is free; `version` '' that it is not stored yet."""

    holder: str = ""
    seconds: int = 0
    acquired_us: int = 0
    renewed_us: int = 0
    transitions: int = 0
    version: str = ""


class LeaseStore(Protocol):
    """Where one lease is kept."""

    async def read(self) -> LeaderLease:
        """The lease as it is.

        Raises:
            StoreError: it cannot be read.
        """

    async def write(self, lease: LeaderLease) -> LeaderLease | None:
        """Store it if its version is still the present one; returns it with its new version, or None: it is not.

        Raises:
            StoreError: unknown whether it was stored.
        """


class Elector:
    """Runs work in one process at a time.

    Args:
        store: where the lease is kept.
        name: of this process, for operators; something unique is added, so that a process that is restarted under its
            old name waits for its predecessor's lease like everybody else.
        times: how long things take.
        clock: the steady clock decides who leads; the wall clock is written into the lease for people to read.
    """

    def __init__(
        self, store: LeaseStore, name: str, times: ElectionTimes | None = None, clock: Clock | None = None
    ) -> None:
        self.identity = f"{name}_{uuid.uuid4().hex[:8]}"
        self._store = store
        self._times = times or ElectionTimes()
        self._clock = clock or SystemClock()
        self._seen = LeaderLease()
        self._seen_us = 0
        self._sent_us = 0
        self._trouble: type[Exception] | None = None
        self._expired: asyncio.Future[None] | None = None

    @property
    def leading(self) -> bool:
        """Whether the work may run now."""
        return self._expired is not None and not self._expired.done()

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` while this process leads, anew each time it comes to lead; returns when `work` returns.

        The work is cancelled before the lease can lapse, and awaited: as long as it has not ended, this process does
        not stand again. When it ended in time, for instance because this was cancelled, the lease is released.

        Raises:
            BaseException: whatever `work` raised, once the lease is released.
        """
        while True:
            await self._campaign()
            if await self._lead(work):
                return

    async def _campaign(self) -> None:
        while not await self._attempt(self._try_to_take):
            await self._clock.sleep(self._times.retry.total_seconds() * random.uniform(1, 1.2))
        log.info("%s leads", self.identity)

    async def _lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Lead until the work ends or the lease is lost; returns whether the work ended by itself."""
        loop = asyncio.get_running_loop()
        expired = self._expired = loop.create_future()

        def tick(
            now_us: int,
        ) -> None:  # in a thread of the clock's: timers of a loop stand still while a machine sleeps
            if now_us - self._sent_us >= duration_us(self._times.deadline):
                loop.call_soon_threadsafe(_set, expired)

        stop = self._clock.pump(tick, self._times.retry.total_seconds() / 4)
        working, renewing = loop.create_task(work()), loop.create_task(self._renew_on())
        try:
            await asyncio.wait((working, renewing, expired), return_when=asyncio.FIRST_COMPLETED)
            by_itself = working.done()
        finally:
            self._expired = None
            try:
                await _ended(working, renewing)
            finally:
                stop()
            await self._release()
        if not renewing.cancelled():
            renewing.result()
        if by_itself:
            working.result()
        else:
            log.warning("%s leads no more: its lease could not be renewed, or is another's", self.identity)
        return by_itself

    async def _renew_on(self) -> None:
        """Renew until the lease is somebody else's. A store that cannot be reached is asked again."""
        while True:
            await self._clock.sleep(self._times.retry.total_seconds())
            if await self._attempt(self._renew) is False:
                return

    async def _attempt(self, step: Callable[[], Coroutine[Any, Any, bool]]) -> bool | None:
        """One step, for half a deadline at most; None if the store did not answer."""
        try:
            answered = await within(self._clock, self._times.deadline.total_seconds() / 2, step())
        except (StoreError, TimeoutError) as error:
            self._complain(error)
            return None
        if self._trouble:
            self._trouble = None
            log.info("the lease of %s can be read and written again", self.identity)
        return answered

    def _complain(self, error: Exception) -> None:
        """Log each kind of trouble once, not at every attempt: an operator acts on the first line."""
        if type(error) is not self._trouble:
            self._trouble = type(error)
            trouble = str(error) or "no answer in time"
            log.warning("the lease of %s cannot be read or written, trying again: %s", self.identity, trouble)

    async def _try_to_take(self) -> bool:
        lease = await self._look()
        unchanged_us = self._clock.steady_us() - self._seen_us
        if lease.holder not in ("", self.identity) and unchanged_us < lease.seconds * 1_000_000:
            return False
        return await self._write(lease)

    async def _renew(self) -> bool:
        """True if renewed, False if the lease is another's."""
        if await self._write(self._seen):
            return True
        # Somebody wrote: perhaps a label only, perhaps ourselves, in a renewal whose answer was lost.
        lease = await self._look()
        return lease.holder in ("", self.identity) and await self._write(lease)

    async def _look(self) -> LeaderLease:
        lease = await self._store.read()
        if lease != self._seen:
            if lease.holder not in ("", self.identity, self._seen.holder):
                log.info("%s waits: %s leads", self.identity, lease.holder)
            self._seen, self._seen_us = lease, self._clock.steady_us()
        return lease

    async def _write(self, before: LeaderLease) -> bool:
        """Take or renew the lease that was `before`; False if it is not as it was."""
        now_us, sent_us = self._clock.wall_us(), self._clock.steady_us()
        ours = replace(before, holder=self.identity, seconds=int(self._times.lease.total_seconds()), renewed_us=now_us)
        if before.holder != self.identity:
            ours = replace(ours, acquired_us=now_us, transitions=before.transitions + bool(before.version))
        written = await self._store.write(ours)
        if written is not None:
            self._seen, self._seen_us, self._sent_us = written, self._clock.steady_us(), sent_us
        return written is not None

    async def _release(self) -> None:
        """Let the next one lead at once, if we may still lead: without an answer for a deadline it is no use to ask."""
        silent_us = self._clock.steady_us() - self._sent_us
        if silent_us >= duration_us(self._times.lease):
            log.error("the work of %s ended after its lease: another may have worked beside it", self.identity)
        elif silent_us < duration_us(self._times.deadline) and self._seen.holder == self.identity:
            await self._attempt(self._write_free)

    async def _write_free(self) -> bool:
        lease = await self._look()  # a renewal may have been cut off after it was sent
        free = replace(lease, holder="", seconds=_RELEASED_SECONDS, renewed_us=self._clock.wall_us())
        return lease.holder == self.identity and await self._store.write(free) is not None


def _set(event: asyncio.Future[None]) -> None:
    if not event.done():
        event.set_result(None)


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel `tasks` and wait until they have ended, however often we are cancelled meanwhile."""
    cancelled = False
    for task in tasks:
        task.cancel()
    while any(not task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
