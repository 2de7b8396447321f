"""Stage 2: the queue in Redis (6.2 or later, Valkey too): exact limits over any number of dispatchers, and wake-ups.

Every step is one Lua script (`lua/`), atomic on the server and judged by its clock; this file is what goes around
them. Requests travel in turns (`turns`), leases are renewed from a thread of their own (`renewal`), and an
idle dispatcher sleeps until it is woken (`wakeups`). docs/backends.md says how the data is laid out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Self

from workqueue.backends.answers import ignore
from workqueue.backends.redis.address import Locator, RedisSettings
from workqueue.backends.redis.announced import NOTHING_ANNOUNCED, Announced
from workqueue.backends.redis.birth import Birth
from workqueue.backends.redis.calls import portions
from workqueue.backends.redis.leasing import Leasing
from workqueue.backends.redis.listing import Listing
from workqueue.backends.redis.pages import Pages
from workqueue.backends.redis.records import key_bytes, pack_enqueue, unpack_configuration
from workqueue.backends.redis.renewal import Renewal
from workqueue.backends.redis.turns import ENQUEUES_IN_ONE_CALL, LOST, Turns
from workqueue.backends.redis.wakeups import Wakeups
from workqueue.backends.url import QueueURL
from workqueue.clock import Clock, SystemClock, duration_us, wait_first
from workqueue.equipment import Equipment
from workqueue.errors import InvalidSettingError, QueueClosedError
from workqueue.handles import Completing, Dead, Observed, Owned, Queued, fenced
from workqueue.interface import KeyState, Snapshot
from workqueue.key import check_key_text, validate_key
from workqueue.lease import DEFAULT_LEASE, LeaseRenewer, LeaseTimes
from workqueue.metrics import QueueMetrics
from workqueue.optional import Completed, Counts, Found, Leased, LeaseRequest
from workqueue.options import MAX_PAYLOAD_BYTES, Options, check_options, check_type, checked_items
from workqueue.paging import Page, PageRequest
from workqueue.rules import MAX_LAST_ERROR_BYTES, Requeue
from workqueue.safe_text import cut
from workqueue.throttle import Configuration

__all__ = ["RedisQueue", "open_url"]

log = logging.getLogger(__name__)

_DEFAULT = Options()
_POLL_SECONDS = 1.0  # how often to look when no wake-ups can be had
_CALLS_AHEAD = 3  # of `queue_many`: the next are packed while Redis works on one


class RedisQueue:
    """A queue in Redis; every handle on it, in any process, is opened by the same URL.

    Args:
        settings: where Redis is and how to talk to it.
        name: which queue there.
        clock: where time comes from instead of the server; for tests.
        owner: recorded with the keys that this handle starts, at most 255 bytes.
        lease: how long a lease lasts and how often it is renewed.
        max_payload: the largest payload accepted, in bytes.

    Raises:
        InvalidSettingError: `owner` is too long.
    """

    exact = True
    lease_steps = 2

    def __init__(
        self,
        settings: RedisSettings,
        name: str = "default",
        *,
        clock: Clock | None = None,
        owner: str = "",
        lease: LeaseTimes = DEFAULT_LEASE,
        max_payload: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        if len(owner.encode()) > 255:
            raise InvalidSettingError(f"owner has at most 255 bytes, not {len(owner.encode())}")
        self.name = name
        self.clock: Clock = clock or SystemClock()
        self.owner = owner
        self.lease_times = lease
        self.max_payload = max_payload
        self.metrics = QueueMetrics(name)
        locator = Locator(settings)
        self._turns = Turns(settings, locator, clock, self._count_enqueues)
        self._home = self._turns.home
        self._birth = Birth(self.clock, lambda: self._turns.address)
        self._listing = Listing(self, self._turns, self._birth)
        self._pages = Pages(self._turns, self._listing)
        self._renewal = Renewal(settings, locator, clock, lease.duration_us, self._birth)
        self.renewer = LeaseRenewer(self._renewal.renew, lease, self.clock)
        self._leasing = Leasing(self, self._turns, self.renewer, self.metrics, self.clock, self._waiter)
        self._wakeups = Wakeups(settings, self._turns.incarnation, self._leasing.bring)
        self.equipment = Equipment(
            name,
            self.clock,
            self.renewer,
            self.metrics,
            max_payload=max_payload,
            home=self._home,
            remark=self._birth.remark,
        )

    async def __aenter__(self) -> Self:
        """Connect, so that a Redis that cannot be used is refused here and not by the first key.

        Raises:
            StoreUnusableError: wrong password, certificate, version, role, or a newer layout.
            StoreUnavailableError: it did not answer within `timeout`.
        """
        await self._turns.__aenter__()
        try:
            await self.configuration()
        except BaseException:
            await self._turns.__aexit__()
            self._home.undo()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await self._leasing.end()
        finally:
            self.renewer.close()
            self._wakeups.close()
            self._renewal.close()
            await self._turns.__aexit__()

    # enqueue

    async def queue(self, key: str, options: Options = _DEFAULT) -> None:
        """Store `key` (see `WorkQueue.queue`)."""
        validate_key(key)
        if options is _DEFAULT:
            return await self._turns.enqueue((key,))
        check_options(options, self.max_payload)
        return await self._turns.enqueue((pack_enqueue(key, options),))

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        """Store every key, or none if one is invalid (see `BulkQueue.queue_many`)."""
        self._home.check()
        checked = checked_items(items, self.max_payload)
        under_way: deque[asyncio.Future[None]] = deque()
        for start in range(0, len(checked), ENQUEUES_IN_ONE_CALL):
            chunk = checked[start : start + ENQUEUES_IN_ONE_CALL]
            for portion in portions([pack_enqueue(key, options) for key, options in chunk]):
                under_way.append(self._turns.enqueue(portion))
                under_way[-1].add_done_callback(ignore)  # one error is raised; the others say the same
                if len(under_way) > _CALLS_AHEAD:
                    await under_way.popleft()
        await asyncio.gather(*under_way)

    def _count_enqueues(self, reply: list[int]) -> None:
        added, deduped, *waits = reply
        waits += [0] * (added + deduped - len(waits))
        for number, wait_us in enumerate(waits):
            self.metrics.enqueued(wait_us, deduped=number < deduped)

    # enumerate

    async def enumerate(self, limit: int = 100) -> Snapshot:
        """What is where, in pages (see `WorkQueue.enumerate`)."""
        check_type("enumerate", limit, int, "a whole number of keys")
        asked_us = self.clock.steady_us()
        snapshot = await self._listing.snapshot(limit)
        self.metrics.enumerated(self.clock.steady_us() - asked_us)
        return snapshot

    async def get(self, key: str) -> KeyState:
        """The state of one key (see `WorkQueue.get`)."""
        return await self._listing.state(check_key_text(key))

    async def find(self, key: str) -> Found:
        """The handles of one key (see `SearchableQueue.find`)."""
        return await self._listing.find(check_key_text(key))

    async def delayed(self, limit: int = 100) -> Sequence[Queued]:
        """The next keys to come due (see `SearchableQueue.delayed`)."""
        return await self._listing.delayed(limit)

    async def page(self, request: PageRequest) -> Page:
        """A page of one place (see `PagedQueue.page`)."""
        return await self._pages.page(request)

    async def counts(self) -> Counts:
        """The gauges (see `CountingQueue.counts`)."""
        return await self._listing.counts()

    # lease

    def lease(self, request: LeaseRequest) -> Coroutine[Any, Any, Leased]:
        """Recover orphans and start keys (see `LeasingQueue.lease`); asked for when this returns."""
        return self._leasing.lease(request)

    def _waiter(self) -> str:
        """Who need not be woken for a lease step that looks itself: nobody, while others sleep under this name."""
        return "" if self._wakeups.is_expected else self._turns.incarnation

    async def wait(self, timeout: timedelta, concurrency: int) -> None:
        """Return as soon as a key may be startable (see `WaitingQueue.wait`)."""
        self._home.check()
        address = self._turns.address
        is_listening = await self._wakeups.listen(address)
        is_alone = is_listening and not self._wakeups.is_expected
        announced = self._leasing.announce(concurrency) if is_alone else None
        woken = self._wakeups.expect()
        waiter = self._turns.incarnation
        try:
            steady_us, wait_us = await self._wait(waiter, concurrency, announced)
            if announced is not None:
                announced.stored_us = steady_us
            longest = timeout.total_seconds() if is_listening else min(timeout.total_seconds(), _POLL_SECONDS)
            seconds = longest if wait_us < 0 else min(wait_us / 1e6, longest)
            if seconds > 0 and self._turns.address == address:  # else a new master has it, whom nobody hears yet
                await wait_first(self.clock, woken, seconds)
        except asyncio.CancelledError:
            woken.cancel()
            self._leave(waiter)
            raise
        finally:
            woken.cancel()

    def _wait(self, waiter: str, concurrency: int, announced: Announced | None) -> asyncio.Future[Any]:
        if announced is None:
            return self._turns.call("wait", waiter, concurrency, *NOTHING_ANNOUNCED)
        terms = announced.terms(self.owner, self.lease_times.duration_us)
        return self._turns.call("wait", waiter, concurrency, *terms, announced=announced.asker)

    def _leave(self, waiter: str) -> None:
        """Nobody looks at the queue after this wait: pass a wake-up on that may have come."""
        if self._wakeups.is_expected:  # by somebody else, who had the same wake-up
            return
        try:
            if not self._leasing.withdraw():
                self._turns.call("leave", waiter).add_done_callback(ignore)
        except QueueClosedError:
            log.debug("closed while waiting")

    # configure

    async def configure(self, configuration: Configuration) -> None:
        """Replace the stored settings (see `ConfigurableQueue.configure`)."""
        check_type("configure", configuration, Configuration, "a Configuration")
        c = configuration
        rate = "" if c.starts_per_second is None else repr(float(c.starts_per_second))
        await self._turns.call("configure", "write", c.concurrency or "", int(c.paused), rate)

    async def configuration(self) -> Configuration:
        """The stored settings."""
        stored, born = await self._turns.call("configure", "read")
        self._birth.look(born)
        return unpack_configuration(stored)

    # the verbs of handles (see `HandleStore`)

    async def start(self, queued: Queued) -> Owned:
        return await self._leasing.start(queued)

    async def drop_queued(self, queued: Queued) -> bool:
        key, queued_us = key_bytes(queued.key), queued.entry.queued_us
        return bool(await self._turns.call("drop", key, queued_us, queued.version or b""))

    def complete(self, owned: Owned) -> Coroutine[Any, Any, bool]:
        return self._settle(owned, b"c")

    def complete_soon(self, owned: Owned, ended: Completed) -> None:
        """Complete a key with what else ends now (see `CompletingQueue.complete_soon`)."""
        lease = owned.lease
        if lease.lost.is_set():
            return ended(False)
        self._turns.settle_for(Completing(owned, self.renewer, ended, lost=LOST), owned.version, lease.token, b"c")
        self.renewer.drop(lease)  # the request has not left yet, and one that is refused leaves the lease as it is
        return None

    def requeue(self, owned: Owned, how: Requeue) -> Coroutine[Any, Any, bool]:
        return fenced(owned, self.renewer, partial(self._requeue, owned, _requeue_verb(how)), lost=LOST)

    async def _requeue(self, owned: Owned, verb: bytes) -> int:
        wait_us = await self._turns.settle(owned.version, owned.lease.token, verb)
        if wait_us != LOST:
            self.metrics.requeued(wait_us)
        return wait_us

    def dead_letter(self, owned: Owned, error: str) -> Coroutine[Any, Any, bool]:
        return self._settle(owned, _dead_letter_verb(error))

    def release(self, owned: Owned) -> Coroutine[Any, Any, bool]:
        return self._settle(owned, b"l")

    def abandon(self, owned: Owned) -> None:
        self.renewer.drop(owned.lease)

    def _settle(self, owned: Owned, verb: bytes) -> Coroutine[Any, Any, bool]:
        write = partial(self._turns.settle, owned.version, owned.lease.token, verb)
        return fenced(owned, self.renewer, write, lost=LOST)

    async def requeue_observed(self, observed: Observed, how: Requeue) -> bool:
        return await self._take(observed, _requeue_verb(how))

    async def dead_letter_observed(self, observed: Observed, error: str) -> bool:
        return await self._take(observed, _dead_letter_verb(error))

    async def _take(self, observed: Observed, verb: bytes) -> bool:
        token, expiry = observed.version
        return bool(await self._turns.call("take", key_bytes(observed.key), key_bytes(token), expiry, verb))

    async def redrive(self, dead: Dead) -> bool:
        return bool(await self._turns.call("dead_verb", key_bytes(dead.key), dead.version, "redrive"))

    async def drop_dead(self, dead: Dead) -> bool:
        return bool(await self._turns.call("dead_verb", key_bytes(dead.key), dead.version, "drop"))


def _requeue_verb(how: Requeue) -> bytes:
    if how.delay is not None:
        return b"r%s%d" % (b"f" if how.floor else b"d", duration_us(how.delay))
    verb = b"ro%d" % duration_us(how.backoff) if how.backoff is not None else b"rb0"
    return b"%s %s" % (verb, cut(how.error, MAX_LAST_ERROR_BYTES).encode()) if how.error else verb


def _dead_letter_verb(error: str) -> bytes:
    return b"d" + error.encode("utf-8", "replace")


def open_url(url: QueueURL, *, clock: Clock | None, owner: str) -> RedisQueue:
    """`redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://`; docs/backends.md lists the settings."""
    name = url.name()
    lease = url.lease_times()
    settings = RedisSettings.from_url(url, name, lease)
    queue = RedisQueue(settings, name, clock=clock, owner=owner, lease=lease, max_payload=url.max_payload())
    url.finish()
    return queue
