"""Stage 2: the queue in a SQLite file, the embedded default: durable, and safe for several processes on one machine.

Every call is a step (`store`, `leasing`) that the writer's thread (`writer`) commits together with
whatever else waits; listings and counts come from a thread that only reads (`reads`).

What an answer promises (P1). An enqueue, a settle or a change of settings is answered once its transaction is committed
and the write-ahead log is synced: its frames are on disk, and so is the log's name, since SQLite syncs the directory
when it begins the log. kill -9 loses nothing: committed frames are with the kernel, and whoever opens the file next
ignores the others. Nor does a power cut, as far as the disk keeps what it says it wrote. Starts, renewals and the
recovery of orphans are committed without waiting for the disk. A power cut may undo them, but the log is in order: no
later step survives where an earlier one is lost. The key is then queued as it was, or an orphan of another boot.
`?synchronous=normal` gives the promise up for power cuts, not for kill -9.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import timedelta
from functools import partial
from operator import itemgetter
from typing import Any, Self, TypeVar

from workqueue.backends.sqlite import leasing
from workqueue.backends.sqlite.boot_id import boot_id
from workqueue.backends.sqlite.file import QueueFile, file_of
from workqueue.backends.sqlite.looking import queue_named
from workqueue.backends.sqlite.opening import Opened, open_queue_file
from workqueue.backends.sqlite.pages import page_of
from workqueue.backends.sqlite.parameters import printable
from workqueue.backends.sqlite.queue_row import RowGoneError, put_row_back
from workqueue.backends.sqlite.reads import Reads, View
from workqueue.backends.sqlite.starting import Starting, release_of
from workqueue.backends.sqlite.store import Arrival, Ask, Change, Enqueue, Identity, Settle, Store
from workqueue.backends.sqlite.waiting import Waiting
from workqueue.backends.sqlite.writer import GroupCommit
from workqueue.backends.url import QueueURL
from workqueue.clock import Clock, SystemClock
from workqueue.equipment import Equipment
from workqueue.errors import (
    KeyNotFoundError,
    QueueClosedError,
    StoreUnavailableError,
    StoreUnusableError,
    WorkQueueError,
)
from workqueue.handles import UNSEEN, Completing, Dead, Observed, Owned, Queued, fenced, state_of
from workqueue.home import Home
from workqueue.interface import KeyState, Snapshot
from workqueue.key import check_key_text, validate_key
from workqueue.lease import DEFAULT_LEASE, Lease, LeaseRenewer, LeaseTimes, Renewed
from workqueue.metrics import QueueMetrics
from workqueue.optional import Completed, Counts, Found, Leased, LeaseRequest
from workqueue.options import MAX_PAYLOAD_BYTES, Options, check_options, check_type, checked_items
from workqueue.paging import Page, PageRequest, Place
from workqueue.rules import Requeue, dead_lettered, merge_into_twin, requeued
from workqueue.throttle import Configuration

__all__ = ["QueueFile", "SqliteQueue", "open_url"]

log = logging.getLogger(__name__)

_DEFAULT = Options()
_KEYS_A_STEP = 500  # of a large `queue_many`
_LETTERS_A_PAGE = 100
_T = TypeVar("_T")


class SqliteQueue:
    """A queue in a SQLite file; processes share it by opening the same file.

    Args:
        file: the file, the queue's name in it, and how it is written.
        clock: where time comes from; None = the machine's, with leases on CLOCK_BOOTTIME.
        owner: recorded with the keys that this handle starts, for operators.
        lease: how long a lease lasts and how often it is renewed.
        max_payload: the largest payload accepted, in bytes.
    """

    exact = True
    lease_steps = 1  # two are no quicker, and each would have half as many keys to share a wait for the disk

    def __init__(
        self,
        file: QueueFile,
        *,
        clock: Clock | None = None,
        owner: str = "",
        lease: LeaseTimes = DEFAULT_LEASE,
        max_payload: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self.name = file.name
        self.clock: Clock = clock or SystemClock()
        self.owner = printable(owner)
        self.max_payload = max_payload
        self.metrics = QueueMetrics(file.name)
        self.renewer = LeaseRenewer(self._renew, lease, self.clock)
        self._lease_us = lease.duration_us
        self._boot = 0 if clock else file.boot  # a FakeClock knows one boot only
        self._file = file
        self._queue = 0
        self._home = Home()
        self.equipment = Equipment(
            file.name, self.clock, self.renewer, self.metrics, max_payload=max_payload, home=self._home
        )
        self._reads = Reads(file, lambda: self._opened.same_file, self._view)
        self._waiting = Waiting(self._reads, self.clock, lease.duration)
        self._writer = GroupCommit(file, self._open_file, self._waiting.note, self._home)
        self._starting = Starting(self, self._writer, self.renewer, self.metrics, self.clock, self._with_row)

    async def __aenter__(self) -> Self:
        if self._file.read_only:
            await self._open_to_look()
        else:
            await self._writer.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._home.leave()
        self.renewer.close()
        self._waiting.note(Change.EVERYTHING)
        try:
            await self._reads.close()  # first, for only who writes can write the log back, and only the last one does
        finally:
            await self._writer.close()

    async def _open_to_look(self) -> None:
        self._home.enter()
        try:
            self._queue = await self._reads.open(partial(queue_named, file=self._file))
        except BaseException:
            self._home.leave()
            await self._reads.close()
            raise

    def _open_file(self) -> tuple[Store, Opened]:
        identity = Identity(self.owner, self._known_boot(), self._lease_us)
        opened = self._opened = open_queue_file(self._file, identity.boot)
        self._queue = opened.queue
        return Store(opened.connection, opened.queue, identity, self.clock), opened

    def _view(self, connection: sqlite3.Connection) -> View:
        return View(connection, self._queue, self._boot_to_look_with(), self.clock, self)

    def _boot_to_look_with(self) -> int | None:
        try:
            return self._known_boot()
        except StoreUnusableError:
            if self._file.read_only:
                return None
            raise

    def _known_boot(self) -> int:
        if self._boot is None:
            self._boot = boot_id()
        return self._boot

    # enqueue

    async def queue(self, key: str, options: Options = _DEFAULT) -> None:
        """Store `key` (see `WorkQueue.queue`)."""
        validate_key(key)
        if options is not _DEFAULT:
            check_options(options, self.max_payload)
        now_us = self.clock.wall_us()
        self._count_enqueued(await self._writer.submit(Enqueue(((key, options),), now_us)), now_us)

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        """Store every key, or none if one is invalid (see `BulkQueue.queue_many`)."""
        self._home.check()
        # In the order in which keys of one moment start, so that keys which start together lie together in the file.
        checked = sorted(checked_items(items, self.max_payload), key=itemgetter(0))
        now_us = self.clock.wall_us()
        # One after the other: what waits in the meantime, lease renewals above all, goes in between.
        for first in range(0, len(checked), _KEYS_A_STEP):
            step = Enqueue(checked[first : first + _KEYS_A_STEP], now_us)
            self._count_enqueued(await self._writer.submit(step), now_us)

    def _count_enqueued(self, stored: Iterable[Arrival], now_us: int) -> None:
        for arrival in stored:
            self.metrics.enqueued(arrival.not_before_us - now_us, deduped=arrival.deduped)

    # enumerate

    async def enumerate(self, limit: int = 100) -> Snapshot:
        """What is where (see `WorkQueue.enumerate`)."""
        check_type("enumerate", limit, int, "a whole number of keys")
        asked_us = self.clock.steady_us()
        running, eligible, twins = await self._look(lambda view: (view.running(), view.eligible(limit), view.twins()))
        self.metrics.enumerated(self.clock.steady_us() - asked_us)
        return Snapshot(running, eligible, twins, self._dead_letters(self.clock.wall_us()))

    async def _dead_letters(self, until_us: int) -> AsyncIterator[Dead]:
        """The dead letters from before `until_us`: a key that is re-driven and fails again is not met twice."""
        after, page = 0, True
        while page:
            listed = await self._look(partial(View.dead, after=after, limit=_LETTERS_A_PAGE, until_us=until_us))
            for after, letter in listed:  # noqa: B007 - where the next page begins
                yield letter
            page = bool(listed)

    async def get(self, key: str) -> KeyState:
        """The state of one key (see `WorkQueue.get`)."""
        check_key_text(key)
        queued, running, dead = await self._look(lambda view: view.find(key))
        state = state_of(
            queued.entry if queued else None,
            running.entry if running else None,
            running.owner if running else "",
            dead.letter if dead else None,
            running.lease if running else UNSEEN,
        )
        if state is None:
            raise KeyNotFoundError(f"no key {key!r} in this queue")
        return state

    async def find(self, key: str) -> Found:
        """The handles of one key (see `SearchableQueue.find`)."""
        check_key_text(key)
        return Found(*await self._look(lambda view: view.find(key)))

    async def delayed(self, limit: int = 100) -> Sequence[Queued]:
        """The next keys to come due (see `SearchableQueue.delayed`)."""
        return await self._look(lambda view: view.delayed(limit))

    async def page(self, request: PageRequest) -> Page:
        """A page of one place (see `PagedQueue.page`)."""
        if request.place is Place.QUEUED and not self._file.read_only:
            while await self._look(View.has_backlog_due):
                await self._ask(leasing.promote, durable=False)
        return await self._look(lambda view: page_of(view, request, self.clock.wall_us()))

    async def counts(self) -> Counts:
        """The gauges (see `CountingQueue.counts`)."""
        if self._file.read_only:
            return (await self._look(partial(View.counts, most_due=2**62)))[0]  # counted, since nothing is promoted
        counts, more_due = await self._look(View.counts)
        while more_due:
            await self._ask(leasing.promote, durable=False)
            counts, more_due = await self._look(View.counts)
        return counts

    async def _look(self, question: Callable[[View], _T]) -> _T:
        self._home.check()
        return await self._with_row(partial(self._reads.look, question))

    async def _with_row(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """The answer of `call`; if it needs the queue's own row, which a hand deleted, that is put back before."""
        try:
            return await call()
        except RowGoneError:
            if self._file.read_only:
                raise
        log.warning("the row of queue %s in %s was deleted by hand and is put back", self.name, self._file.path)
        await self._ask(lambda store: put_row_back(store.connection, store.queue, self.name))
        return await call()

    # lease

    def lease(self, request: LeaseRequest) -> Coroutine[Any, Any, Leased]:
        """Recover orphans and start keys (see `LeasingQueue.lease`); asked for when this returns."""
        return self._starting.lease(request)

    async def start(self, queued: Queued) -> Owned:
        return await self._starting.start(queued)

    def _renew(self, leases: Sequence[Lease], timeout: float) -> Renewed:
        ask = Ask(lambda store: leasing.renew(store, [int(lease.token) for lease in leases]))
        try:
            held = self._writer.run(ask, timeout)
        except WorkQueueError as error:  # whatever it is, it may be over before the leases are
            raise StoreUnavailableError(str(error)) from error
        return Renewed.of(leases, [lease for lease in leases if int(lease.token) in held])

    async def wait(self, timeout: timedelta, concurrency: int) -> None:
        """Return as soon as a key may be startable (see `WaitingQueue.wait`)."""
        self._home.check()
        await self._waiting.wait(self._writer, timeout, concurrency)

    # configure

    async def configure(self, configuration: Configuration) -> None:
        """Replace the stored settings (see `ConfigurableQueue.configure`)."""
        check_type("configure", configuration, Configuration, "a Configuration")
        now_us = self.clock.wall_us()
        await self._with_row(lambda: self._ask(lambda store: store.configure(configuration, now_us)))

    async def configuration(self) -> Configuration:
        """The stored settings."""
        return await self._look(View.configuration)

    # the verbs of handles (see `HandleStore`)

    async def complete(self, owned: Owned) -> bool:
        return await self._settle(owned, Settle(owned.version, owned.key))

    def complete_soon(self, owned: Owned, ended: Completed) -> None:
        """Complete a key with what else ends now (see `CompletingQueue.complete_soon`)."""
        if owned.lease.lost.is_set():
            return ended(False)
        self.renewer.drop(owned.lease)  # before the writer hears of it: no renewal may meet a key that was settled
        try:
            asker = Completing(owned, self.renewer, ended, lost=False)
            return self._writer.submit_for(asker, Settle(owned.version, owned.key))
        except QueueClosedError:
            self.renewer.keep(owned.lease)
            raise

    async def requeue(self, owned: Owned, how: Requeue) -> bool:
        now_us = self.clock.wall_us()
        back = Arrival(requeued(owned.entry, how, now_us), merge_into_twin)
        if applied := await self._settle(owned, Settle(owned.version, owned.key, back)):
            self.metrics.requeued(back.not_before_us - now_us)
        return applied

    async def dead_letter(self, owned: Owned, error: str) -> bool:
        letter = dead_lettered(owned.entry, error, self.clock.wall_us())
        return await self._settle(owned, Settle(owned.version, owned.key, letter=letter))

    async def release(self, owned: Owned) -> bool:
        return await self._settle(owned, release_of(owned.version, owned.entry))

    def abandon(self, owned: Owned) -> None:
        self.renewer.drop(owned.lease)

    def _settle(self, owned: Owned, settle: Settle) -> Coroutine[Any, Any, bool]:
        return fenced(owned, self.renewer, partial(self._writer.submit, settle), lost=False)

    async def requeue_observed(self, observed: Observed, how: Requeue) -> bool:
        return await self._ask(partial(leasing.take_observed, pin=observed.version, how=how))

    async def dead_letter_observed(self, observed: Observed, error: str) -> bool:
        return await self._ask(partial(leasing.take_observed, pin=observed.version, how=error))

    async def drop_queued(self, queued: Queued) -> bool:
        return await self._ask(lambda store: store.drop_queued(*queued.version))

    async def redrive(self, dead: Dead) -> bool:
        row_id, stamp = dead.version
        return await self._ask(lambda store: store.redrive(row_id, stamp, self.clock.wall_us()))

    async def drop_dead(self, dead: Dead) -> bool:
        return await self._ask(lambda store: store.drop_dead(*dead.version))

    async def _ask(self, question: Callable[[Store], _T], *, durable: bool = True) -> _T:
        answer: _T = await self._writer.submit(Ask(question), durable=durable)
        return answer


def open_url(url: QueueURL, *, clock: Clock | None, owner: str) -> SqliteQueue:
    """The queue at a `sqlite://` URL: the settings of `file_of`, `lease`, `renew` and `max_payload`."""
    lease = url.lease_times()
    file = file_of(url, lease)
    queue = SqliteQueue(file, clock=clock, owner=owner, lease=lease, max_payload=url.max_payload())
    url.finish()
    return queue
