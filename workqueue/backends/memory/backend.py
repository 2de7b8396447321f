"""Stage 2: the queue in this process's memory. Full semantics, nothing survives the process; for tests and small tools.

Every step is one stretch of code without an await on one event loop, and so is atomic. Only lease renewal comes from
another thread; it and recovery exclude each other by a lock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from threading import get_ident
from typing import Self

from workqueue.backends.memory.pages import page_of
from workqueue.backends.memory.store import Held, MemoryStore
from workqueue.backends.url import QueueURL
from workqueue.clock import Clock, SystemClock
from workqueue.equipment import Equipment
from workqueue.errors import KeyNotFoundError, StartLostError
from workqueue.handles import Dead, Observed, Owned, Queued, recovered_orphan
from workqueue.home import Home
from workqueue.interface import KeyState, Snapshot
from workqueue.key import check_key_text, validate_key
from workqueue.lease import DEFAULT_LEASE, Lease, LeaseRenewer, LeaseTimes, Renewed
from workqueue.metrics import QueueMetrics
from workqueue.optional import Completed, Counts, Found, Leased, LeaseRequest, RecoveredOrphan
from workqueue.options import MAX_PAYLOAD_BYTES, Options, check_options, check_type, checked_items
from workqueue.orphan import ORPHAN_ERROR, orphan_wait
from workqueue.paging import Page, PageRequest
from workqueue.rules import Entry, Requeue
from workqueue.throttle import Configuration

__all__ = ["MemoryQueue", "open_url"]

_DEFAULT = Options()


class MemoryQueue:
    """A queue in memory; `peer()` opens a second handle on the same keys, as another process would.

    Args:
        name: labels metrics.
        clock: where time comes from.
        owner: recorded with the keys that this handle starts, for operators.
        lease: how long a lease lasts and how often it is renewed.
        max_payload: the largest payload accepted, in bytes.
    """

    exact = True

    def __init__(
        self,
        name: str = "default",
        *,
        clock: Clock | None = None,
        owner: str = "",
        lease: LeaseTimes = DEFAULT_LEASE,
        max_payload: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self.name = name
        self.clock: Clock = clock or SystemClock()
        self.owner = owner
        self.lease_times = lease
        self._lease_us = lease.duration_us
        self.max_payload = max_payload
        self.metrics = QueueMetrics(name)
        self.renewer = LeaseRenewer(self._renew, lease, self.clock)
        self._store = MemoryStore(self.clock)
        self._home = Home()
        self.equipment = Equipment(
            name, self.clock, self.renewer, self.metrics, max_payload=max_payload, home=self._home
        )

    def peer(self, *, owner: str = "") -> MemoryQueue:
        """Another handle on the same keys with leases of its own."""
        peer = MemoryQueue(
            self.name, clock=self.clock, owner=owner, lease=self.lease_times, max_payload=self.max_payload
        )
        peer._store = self._store
        return peer

    async def __aenter__(self) -> Self:
        self._home.enter()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._home.leave()
        self.renewer.close()
        self._store.waiters.wake()

    # enqueue

    async def queue(self, key: str, options: Options = _DEFAULT) -> None:
        """Store `key` (see `WorkQueue.queue`)."""
        home = self._home  # `check`, without the call
        if get_ident() != home.thread or not home.is_running():
            raise home.refusal()
        validate_key(key)
        if options is not _DEFAULT:
            check_options(options, self.max_payload)
        self._enqueue(key, options)

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        """Store every key, or none if one is invalid (see `BulkQueue.queue_many`)."""
        self._home.check()
        checked = checked_items(items, self.max_payload)
        for key, options in checked:
            self._enqueue(key, options)

    def _enqueue(self, key: str, options: Options) -> None:
        now_us = self.clock.wall_us()
        stored, deduped = self._store.enqueue(key, options, now_us)
        self.metrics.enqueued(stored.not_before_us - now_us if stored.not_before_us else 0, deduped=deduped)

    # enumerate

    async def enumerate(self, limit: int = 100) -> Snapshot:
        """What is where (see `WorkQueue.enumerate`)."""
        check_type("enumerate", limit, int, "a whole number of keys")
        self._home.check()
        store, asked_us = self._store, self.clock.steady_us()
        store.promote(self.clock.wall_us())
        snapshot = Snapshot(
            [self._observed(held) for held in store.in_progress.values()],
            [Queued(self, entry) for entry in store.ready.first(limit)],
            [Queued(self, store.queued[key]) for key in store.in_progress if key in store.queued],
            self._dead_letters(self.clock.wall_us()),
        )
        self.metrics.enumerated(self.clock.steady_us() - asked_us)
        return snapshot

    def _observed(self, held: Held) -> Observed:
        orphaned = held.expires_us <= self.clock.steady_us()
        return Observed(self, held.entry, held.owner, orphaned, (held, held.expires_us), held.seen(self.clock))

    async def find(self, key: str) -> Found:
        """The handles of one key (see `SearchableQueue.find`)."""
        self._home.check()
        check_key_text(key)
        entry, held, letter = self._store.queued.get(key), self._store.in_progress.get(key), self._store.dead.get(key)
        return Found(
            Queued(self, entry) if entry else None,
            self._observed(held) if held else None,
            Dead(self, letter) if letter else None,
        )

    async def delayed(self, limit: int = 100) -> Sequence[Queued]:
        """The next keys to come due (see `SearchableQueue.delayed`)."""
        self._home.check()
        return [Queued(self, entry) for entry in self._store.delayed(limit, self.clock.wall_us())]

    async def page(self, request: PageRequest) -> Page:
        """A page of one place (see `PagedQueue.page`)."""
        self._home.check()
        return page_of(self._store, self, self._observed, request, self.clock.wall_us())

    async def _dead_letters(self, until_us: int) -> AsyncIterator[Dead]:
        """All dead letters but those from since `until_us`: a key that fails again after a re-drive is not met twice.

        One from the future is from before the clock was set back.
        """
        for key in list(self._store.dead):
            self._home.check()
            letter = self._store.dead.get(key)
            if letter is not None and not until_us < letter.failed_us <= self.clock.wall_us():
                yield Dead(self, letter)

    async def get(self, key: str) -> KeyState:
        """The state of one key (see `WorkQueue.get`)."""
        self._home.check()
        state = self._store.state(check_key_text(key))
        if state is None:
            raise KeyNotFoundError(f"no key {key!r} in this queue")
        return state

    async def counts(self) -> Counts:
        """The gauges (see `CountingQueue.counts`)."""
        self._home.check()
        return self._store.counts(self.clock.wall_us())

    # lease

    async def lease(self, request: LeaseRequest) -> Leased:
        """Recover orphans and start keys, in one step (see `LeasingQueue.lease`)."""
        self._home.check()
        store, now_us = self._store, self.clock.wall_us()
        recovered = self._recover(request, now_us)
        room = min(request.limit, store.room(request.concurrency, now_us))
        store.promote(now_us)
        entries = store.ready.take(room)
        store.spend(len(entries), now_us)
        return Leased(self._start(entries, now_us), recovered)

    def _recover(self, request: LeaseRequest, now_us: int) -> Sequence[RecoveredOrphan]:
        lapsed = self._store.lapsed(self.clock.steady_us())
        if not lapsed:
            return ()
        found = [self._recover_one(held, expires_us, request, now_us) for held, expires_us in lapsed]
        recovered = [orphan for orphan in found if orphan is not None]
        self.metrics.expired(len(recovered))
        return recovered

    def _recover_one(self, held: Held, expires_us: int, request: LeaseRequest, now_us: int) -> RecoveredOrphan | None:
        entry = held.entry
        # Asked for before the key is taken: a hook that raises must not cost it.
        wait = orphan_wait(entry.attempts, request.max_retry, request.backoff)
        if not self._store.take(held, expires_us):
            return None
        if wait is None:
            self._store.dead_letter(entry, ORPHAN_ERROR, now_us)
        else:
            self._store.requeue(entry, Requeue(backoff=wait), now_us)
        return recovered_orphan(entry, held.owner, dead_lettered=wait is None)

    def _start(self, entries: Sequence[Entry], now_us: int) -> list[Owned]:
        sent_us = self.clock.steady_us()
        begun = self._store.start(entries, self.owner, sent_us, sent_us + self._lease_us)
        self.renewer.hold_all(begun, sent_us)
        self.metrics.started_all(entries, now_us)
        return [Owned(self, held.entry, held) for held in begun]

    def _renew(self, leases: Sequence[Lease], timeout: float) -> Renewed:
        return Renewed.of(leases, self._store.renew(leases, self.clock.steady_us() + self._lease_us))

    async def wait(self, timeout: timedelta, concurrency: int) -> None:
        """Return as soon as a key may be startable (see `WaitingQueue.wait`)."""
        self._home.check()
        change_us = self._store.next_change_us(concurrency, self.clock.wall_us())
        await self._store.waiters.wait(min(change_us / 1e6, timeout.total_seconds()))

    # configure

    async def configure(self, configuration: Configuration) -> None:
        """Replace the stored settings (see `ConfigurableQueue.configure`)."""
        check_type("configure", configuration, Configuration, "a Configuration")
        self._home.check()
        self._store.configure(configuration, self.clock.wall_us())

    async def configuration(self) -> Configuration:
        """The stored settings."""
        self._home.check()
        return self._store.configuration

    # the verbs of handles (see `HandleStore`)

    async def start(self, queued: Queued) -> Owned:
        self._home.check()
        now_us = self.clock.wall_us()
        self._store.promote(now_us)
        if not self._store.startable(queued.entry):
            raise StartLostError()
        self._store.ready.note_stale()
        return self._start([queued.entry], now_us)[0]

    async def drop_queued(self, queued: Queued) -> bool:
        self._home.check()
        return self._store.drop_queued(queued.entry)

    async def complete(self, owned: Owned) -> bool:
        return self._complete(owned)

    def complete_soon(self, owned: Owned, ended: Completed) -> None:
        """Complete a key at once (see `CompletingQueue.complete_soon`)."""
        ended(self._complete(owned))

    def _complete(self, owned: Owned) -> bool:
        if not self._settle(owned):
            return False
        self._store.dead.pop(owned.key, None)
        return True

    async def requeue(self, owned: Owned, how: Requeue) -> bool:
        if not self._settle(owned):
            return False
        now_us = self.clock.wall_us()
        back = self._store.requeue(owned.entry, how, now_us)
        self.metrics.requeued(back.not_before_us - now_us if back.not_before_us else 0)
        return True

    async def dead_letter(self, owned: Owned, error: str) -> bool:
        if not self._settle(owned):
            return False
        self._store.dead_letter(owned.entry, error, self.clock.wall_us())
        return True

    async def release(self, owned: Owned) -> bool:
        if not self._settle(owned):
            return False
        self._store.release(owned.entry)
        return True

    def abandon(self, owned: Owned) -> None:
        self.renewer.drop(owned.lease)

    def _settle(self, owned: Owned) -> bool:
        """End the lease if it is still `owned`'s; `handles.fenced` where nothing is awaited and no write fails."""
        home = self._home
        if get_ident() != home.thread or not home.is_running():
            raise home.refusal()
        lease = owned.lease
        self.renewer.drop(lease)
        if lease.lost.is_set() or not self._store.end_lease(lease):
            lease.lost.set()
            return False
        return True

    async def requeue_observed(self, observed: Observed, how: Requeue) -> bool:
        self._home.check()
        if not self._store.take(*observed.version):
            return False
        self._store.requeue(observed.entry, how, self.clock.wall_us())
        return True

    async def dead_letter_observed(self, observed: Observed, error: str) -> bool:
        self._home.check()
        if not self._store.take(*observed.version):
            return False
        self._store.dead_letter(observed.entry, error, self.clock.wall_us())
        return True

    async def redrive(self, dead: Dead) -> bool:
        self._home.check()
        return self._store.redrive(dead.letter, self.clock.wall_us())

    async def drop_dead(self, dead: Dead) -> bool:
        self._home.check()
        return self._store.drop_dead(dead.letter)


def open_url(url: QueueURL, *, clock: Clock | None, owner: str) -> MemoryQueue:
    """`memory://`: a new queue each time; settings `name`, `lease`, `renew`, `max_payload`."""
    queue = MemoryQueue(url.name(), clock=clock, owner=owner, lease=url.lease_times(), max_payload=url.max_payload())
    url.finish()
    return queue
