"""Stage 5: keeping the leases of this process alive, from a thread that a blocked event loop cannot stop.

One renewer serves all keys of a process and renews them in one batch. It is an object with `tick(now)`: in production a
thread pumps it, under a `FakeClock` the test does. An owner that cannot renew must find out *before* the store lets
somebody else have the key, whether or not the store can be reached; so each lease has a local deadline, counted from
when its last successful renewal was sent, a tenth before the store's own. And leases are renewed for somebody: once the
event loop that won them has ended, nobody can settle their keys any more, and others may have them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from workqueue.clock import Clock, duration_us
from workqueue.errors import InvalidSettingError, StoreUnavailableError
from workqueue.options import check_duration

__all__ = ["DEFAULT_LEASE", "Lease", "LeaseRenewer", "LeaseTimes", "Lost", "Renew", "Renewed"]

log = logging.getLogger(__name__)


class Lost:
    """A thread-safe event, set once: the owner's lease is gone, and its settle will not be applied."""

    __slots__ = ("_callbacks", "_event", "_set")

    def __init__(self) -> None:
        self._set = False
        self._callbacks: list[Callable[[], None]] = []
        self._event: threading.Event | None = None  # a kilobyte: made only for a thread that waits

    def is_set(self) -> bool:
        """Whether the lease is gone."""
        return self._set

    def set(self) -> None:
        """Call everybody who subscribed; a second call does nothing."""
        self._set = True
        self._call_subscribers()

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, in the thread that sets the event, or right away if it is set already."""
        self._callbacks.append(callback)
        if self._set:
            self._call_subscribers()

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until set or until `timeout` seconds have passed; returns whether it is set."""
        event = self._event
        if event is None:  # of two threads that come at once each makes its own, and both subscribe
            event = self._event = threading.Event()
            self.subscribe(event.set)
        return event.wait(timeout) or self._set

    def _call_subscribers(self) -> None:
        # Without a lock: list.pop is atomic, so a set() that races a subscribe() calls each callback exactly once.
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:
                return
            try:
                callback()
            except Exception:  # else those who subscribed before it, the dispatcher first of all, would not be called
                log.exception("a subscriber to a lost lease raised")


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long a lease lasts and how often it is renewed.

    Raises:
        InvalidOptionsError: one is no timedelta.
        InvalidSettingError: a renewal would come too late: `renew_every` must be at most half of `duration`.
    """

    duration: timedelta = timedelta(seconds=15)
    renew_every: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        for name, time in (("lease", self.duration), ("renew", self.renew_every)):
            check_duration(name, time)
        if not timedelta(0) < self.renew_every <= self.duration / 2:
            raise InvalidSettingError(
                f"renew={self.renew_every} must be more than 0 and at most half of lease={self.duration}"
            )

    @property
    def duration_us(self) -> int:
        return duration_us(self.duration)

    @property
    def good_for_us(self) -> int:
        """How long an owner relies on a lease, counted from when the request that won or renewed it was sent."""
        return self.duration_us - self.duration_us // 10


DEFAULT_LEASE = LeaseTimes()


class Lease:
    """The ownership of one in-progress key by this process: its token, and `lost` when it is gone.

    `deadline_us` is until when its owner relies on it; the renewer's.
    """

    __slots__ = ("deadline_us", "key", "lost", "token")

    def __init__(self, key: str, token: str, deadline_us: int = 0) -> None:
        self.key = key
        self.token = token
        self.lost = Lost()
        self.deadline_us = deadline_us


@dataclass(frozen=True, slots=True)
class Renewed:
    """What the store said of the leases that it was asked to renew; of those in neither list it said nothing.

    Args:
        kept: still held, and renewed.
        lost: another owner's by now, or nobody's.
        trouble: why nothing is known of the others; they are asked for again until their deadlines.
        why_lost: what became of the lost ones, if the store knows.
    """

    kept: Collection[Lease]
    lost: Collection[Lease] = ()
    trouble: str = ""
    why_lost: str = ""

    @classmethod
    def of(cls, leases: Sequence[Lease], kept: Collection[Lease]) -> Renewed:
        """The answer of a store that spoke of each of `leases`: those that are not kept are lost."""
        if len(kept) == len(leases):
            return cls(kept)
        held = set(kept)
        return cls(kept, [lease for lease in leases if lease not in held])


Renew = Callable[[Sequence[Lease], float], Renewed]
"""Renew these leases in the store, within the given seconds, from the renewer's thread.

Raises StoreUnavailableError when the store said nothing of any of them: they are asked for again until the deadline.
"""


_NOT_THERE = "the store has it no more: another owner took the key, or it was removed"


class LeaseRenewer:
    """Renews every held lease in one batch, and sets `lost` of those that are gone.

    Args:
        renew: the backend's batch renewal; runs in the renewer's thread.
        times: lease duration and renewal period.
        clock: `steady_us` judges deadlines; `pump` drives `tick`.
    """

    def __init__(self, renew: Renew, times: LeaseTimes, clock: Clock) -> None:
        self._renew = renew
        self.times = times
        self._clock = clock
        self._held: dict[Lease, None] = {}  # a set that keeps its order
        self._margin_us = times.good_for_us
        self._every_us = duration_us(times.renew_every)
        self._due_us = 0
        self._stop: Callable[[], None] | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ran_us = 0
        self.ticked_us = clock.steady_us()
        """When `tick` last ran, for health checks."""

    def hold(self, lease: Lease, sent_us: int) -> None:
        """As `hold_all`, for one."""
        self.hold_all((lease,), sent_us)

    def hold_all(self, leases: Collection[Lease], sent_us: int) -> None:
        """Keep `leases` alive from now on; `sent_us` is when the request that won them was sent.

        What has lapsed by now, because the answer took so long or the process stood still, is lost at once. So is what
        was won by a step still under way at `close`: nobody would renew it.
        """
        deadline_us = sent_us + self._margin_us
        for lease in leases:
            lease.deadline_us = deadline_us
        if self._closed:
            for lease in leases:
                lease.lost.set()
        elif self._clock.steady_us() >= deadline_us:
            for lease in leases:
                self._lose(lease, "the store answered too late")
        elif leases:
            self._begin(leases)

    def _begin(self, leases: Iterable[Lease]) -> None:
        if self._loop is not None and self._loop.is_closed():  # and this is another one
            self._let_go("the event loop that won it was closed")
        self._held.update(dict.fromkeys(leases))
        if self._stop is None:
            self._start()

    def drop(self, lease: Lease) -> None:
        """Stop renewing `lease`: it was settled, or is left to lapse."""
        self._held.pop(lease, None)

    def keep(self, lease: Lease) -> None:
        """Renew `lease` on, as if it had not been dropped: the settle for which it was failed and may be tried again.

        So a lease lives through an outage of the store that is shorter than itself, and a longer one sets `lost`.
        """
        self.hold(lease, lease.deadline_us - self._margin_us)

    def tick(self, now_us: int) -> None:
        """Renew what is due and set `lost` of what is gone. Called by the pump, or by a test."""
        self.ticked_us = now_us
        if self._has_loop_ended(now_us):
            self._let_go("the event loop that won it has ended")
            return
        self._expire(now_us)
        if now_us >= self._due_us and self._held:
            self._renew_all(now_us)
            self._expire(self._clock.steady_us())

    def stalled(self, now_us: int) -> bool:
        """Whether the pump runs but has not ticked within one lease, so that leases lapse unrenewed."""
        return self._stop is not None and now_us - self.ticked_us > self.times.duration_us

    def close(self) -> None:
        """Stop the pump for good. Leases still held are left to lapse."""
        self._closed = True
        self._held.clear()
        if self._stop is not None:
            self._stop()
            self._stop = None

    def _start(self) -> None:
        self.ticked_us = self._ran_us = self._clock.steady_us()
        self._loop = _running_loop()
        self._due_us = self.ticked_us + self._every_us
        self._stop = self._clock.pump(self.tick, self.times.renew_every.total_seconds() / 5)

    def _has_loop_ended(self, now_us: int) -> bool:
        """Whether nobody is left who could settle: the loop is closed, or has not run for two leases.

        A loop that is merely blocked is running. One that stands still between two `run_until_complete` is given time.
        """
        if self._loop is None or self._loop.is_running():
            self._ran_us = now_us
            return False
        return self._loop.is_closed() or now_us - self._ran_us > 2 * self.times.duration_us

    def _let_go(self, why: str) -> None:
        """Renew nothing any more, until somebody holds a lease again."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        for lease in list(self._held):
            self._lose(lease, why)

    def _renew_all(self, sent_us: int) -> None:
        batch = list(self._held)
        patience = min(lease.deadline_us for lease in batch) - sent_us
        try:
            renewed = self._renew(batch, max(patience, 0) / 1e6)
        except StoreUnavailableError as error:
            renewed = Renewed((), trouble=str(error))
        for lease in renewed.kept:
            lease.deadline_us = sent_us + self._margin_us
        for lease in renewed.lost:
            if lease in self._held:  # not settled while the renewal was under way
                self._lose(lease, renewed.why_lost or _NOT_THERE)
        unknown = len(batch) - len(renewed.kept) - len(renewed.lost)
        if unknown:  # asked again at the next tick, until the deadline
            log.warning("lease renewal of %d keys failed, trying again: %s", unknown, renewed.trouble)
        else:
            self._due_us = sent_us + self._every_us

    def _expire(self, now_us: int) -> None:
        for lease in [lease for lease in list(self._held) if now_us >= lease.deadline_us]:
            self._lose(lease, "it could not be renewed in time")

    def _lose(self, lease: Lease, why: str) -> None:
        self.drop(lease)
        log.warning("lease of key %r lost: %s", lease.key, why, extra={"key": lease.key})
        lease.lost.set()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # leases of a synchronous program: as long as the process lives
        return None
