"""Stage 2: the queue in a Cloud Storage bucket, which the Go implementation may work on at the same time.

No server of ours, and no transaction of theirs: a key is an object, its place a folder, and every step a few requests
pinned to what was read (`moves`). What is queued is listed now and then and kept (`listing`); leases are
renewed from a thread (`renewal`). docs/backends.md says what it costs and needs, and how a bucket is laid out.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Self

from workqueue.backends.gcs.address import DEFAULT_LEASE, GCSSettings, check_owner, may_exist
from workqueue.backends.gcs.api.credentials import TokenSource
from workqueue.backends.gcs.api.objects import Stored
from workqueue.backends.gcs.bucket import Bucket, Identity
from workqueue.backends.gcs.handles import Handles
from workqueue.backends.gcs.leasing import Leasing
from workqueue.backends.gcs.listing.packed import Candidate, unpack
from workqueue.backends.gcs.listing.running import Seen
from workqueue.backends.gcs.metadata import PRESENT, attempts_of, check_priority, entry_of, letter_of
from workqueue.backends.gcs.pages import Pages
from workqueue.backends.gcs.renewal import Renewal
from workqueue.backends.gcs.sharing.sharing import Sharing
from workqueue.backends.gcs.stored_settings import configuration_of
from workqueue.backends.url import QueueURL
from workqueue.backends.waiters import Waiters
from workqueue.clock import Clock, SystemClock
from workqueue.equipment import Equipment
from workqueue.errors import KeyNotFoundError
from workqueue.handles import UNSEEN, Queued, Unreadable, state_of
from workqueue.home import Home
from workqueue.interface import KeyState, KeyStatus, Snapshot
from workqueue.key import check_key_text
from workqueue.lease import LeaseRenewer, LeaseTimes
from workqueue.optional import Counts, Found, Leased, LeaseRequest
from workqueue.options import MAX_PAYLOAD_BYTES, Options, check_options, check_type, checked_items
from workqueue.paging import Page, PageRequest
from workqueue.rules import enqueued
from workqueue.throttle import Configuration

__all__ = ["GCSQueue", "open_url"]

_DEFAULT = Options()
_POLL_SECONDS = 10.0  # a bucket sends no wake-ups: what others stored is seen by listing again
_LEFT_TO_OTHERS_US = 1_000_000  # when to see whether the other dispatchers got to what was left to them
_MOST_SHOWN = 1000
_PLACES = (KeyStatus.QUEUED, KeyStatus.IN_PROGRESS, KeyStatus.DEAD_LETTER)


class GCSQueue:
    """A queue in a bucket; every handle on it, in any process, is opened by the same URL.

    Args:
        settings: where the bucket is and how to work it.
        name: labels metrics; a bucket, or a prefix in it, is one queue whatever its name.
        clock: where time comes from instead of the machine and the store; for tests.
        owner: recorded with the keys that this handle starts.
        lease: how long a lease lasts and how often it is renewed.
        max_payload: the largest payload accepted, in bytes.
        tokens: where bearer tokens come from instead of the ambient credentials.

    Raises:
        InvalidSettingError: `owner` is not printable, or too long.
    """

    def __init__(  # noqa: PLR0913 - as every backend, and where tokens come from
        self,
        settings: GCSSettings,
        name: str = "default",
        *,
        clock: Clock | None = None,
        owner: str = "",
        lease: LeaseTimes = DEFAULT_LEASE,
        max_payload: int = MAX_PAYLOAD_BYTES,
        tokens: TokenSource | None = None,
    ) -> None:
        self.name = name
        self.owner = check_owner(owner)
        self.exact = settings.exact
        self.lease_times = lease
        self.max_payload = max_payload
        self._waiters = Waiters(clock or SystemClock())
        self._bucket = Bucket(settings, clock, Identity(name, owner), self._waiters.wake, tokens)
        self.clock: Clock = self._bucket.clock
        self.metrics = self._bucket.metrics
        self._renewal = Renewal(self._bucket.connect, settings.bucket, self._bucket.time, lease.duration_us)
        self.renewer = LeaseRenewer(self._renewal.renew, lease, self.clock)
        sharing = Sharing(self._bucket, lease.duration_us)
        self._home = Home()
        self.equipment = Equipment(
            name,
            self.clock,
            self.renewer,
            self.metrics,
            wakes=False,  # a bucket does not say what other processes stored
            max_payload=max_payload,
            home=self._home,
        )
        self._handles = Handles(self._bucket, self.renewer, sharing, self._waiters.wake, self._home)
        self._pages = Pages(self._bucket, self._handles)
        self._leasing = Leasing(self._bucket, self._handles, sharing)
        self._width = asyncio.Semaphore(settings.connections)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            StoreUnusableError: there is no such bucket, or the credentials are no good.
        """
        self._home.enter()
        try:
            await self._bucket.open()
        except BaseException:
            self._home.undo()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._handles.aftermath.close()
        self._home.leave()
        self.renewer.close()
        self._waiters.wake()
        await asyncio.to_thread(self._renewal.close)
        await self._bucket.close()

    # enqueue

    async def queue(self, key: str, options: Options = _DEFAULT) -> None:
        """Store `key` (see `WorkQueue.queue`)."""
        self._home.check()
        self._check(key, options)
        await self._enqueue(key, options)

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        """Store every key, or none if one is invalid (see `BulkQueue.queue_many`); many requests at a time."""
        self._home.check()
        by_key: defaultdict[str, list[Options]] = defaultdict(list)
        for key, options in checked_items(items, self.max_payload):
            self._check(key, options)
            by_key[key].append(options)
        answers = await asyncio.gather(
            *(self._enqueue_all(key, each) for key, each in by_key.items()), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    def _check(self, key: str, options: Options) -> None:
        self._bucket.place.check_key(key)
        check_options(options, self.max_payload)
        check_priority(options.priority)

    async def _enqueue_all(self, key: str, each: Sequence[Options]) -> None:
        async with self._width:
            for options in each:
                await self._enqueue(key, options)

    async def _enqueue(self, key: str, options: Options) -> None:
        now_us = self.clock.wall_us()
        placed = await self._bucket.moves.enqueue(enqueued(key, options, now_us))
        self._bucket.listing.queued(Candidate(key, placed.stored, placed.entry))
        not_before_us = placed.entry.not_before_us
        self.metrics.enqueued(not_before_us - now_us if not_before_us else 0, deduped=placed.deduped)
        self._waiters.wake()

    # enumerate

    async def enumerate(self, limit: int = 100) -> Snapshot:
        """What is where, listed anew (see `WorkQueue.enumerate`)."""
        check_type("enumerate", limit, int, "a whole number of keys")
        self._home.check()
        listing = self._bucket.listing
        await listing.look()
        await listing.refresh()
        taken: list[Candidate] = []
        while len(taken) < limit and (candidate := listing.take()) is not None:
            taken.append(candidate)
        for candidate in taken:
            listing.put_back(candidate)
        twins = [unpack(record) for record in listing.kept.twins.values()]
        observed = [self._handles.observed(key, seen) for key, seen in listing.running.keys.items()]
        queued = await self._handles.queued(taken)
        aside = [self._handles.unreadable(odd) for odd in listing.aside.all()[:_MOST_SHOWN]]
        letters = self._handles.all_dead(self.clock.wall_us())
        return Snapshot(observed, queued, await self._handles.queued(twins), letters, aside)

    async def find(self, key: str) -> Found:
        """The handles of one key (see `SearchableQueue.find`)."""
        self._home.check()
        waiting, running, letter = await self._read(check_key_text(key))
        queued = await self._handles.queued([_candidate(key, waiting)]) if waiting is not None else [None]
        dead = await self._handles.dead([(key, letter)]) if letter is not None else [None]
        observed = self._handles.observed(key, Seen.of(running)) if running else None
        return Found(queued[0], observed, dead[0], self._unreadable(key, waiting, running, letter))

    async def delayed(self, limit: int = 100) -> Sequence[Queued]:
        """The next keys to come due (see `SearchableQueue.delayed`)."""
        self._home.check()
        listing = self._bucket.listing
        await listing.look()
        await listing.refresh()
        listing.kept.promote(self.clock.wall_us())
        return await self._handles.queued(listing.kept.soonest(limit))

    async def page(self, request: PageRequest) -> Page:
        """A page of one place (see `PagedQueue.page`)."""
        self._home.check()
        return await self._pages.page(request)

    async def get(self, key: str) -> KeyState:
        """The state of one key (see `WorkQueue.get`)."""
        self._home.check()
        waiting, running, letter = await self._read(check_key_text(key))
        unreadable = self._unreadable(key, waiting, running, letter)
        if unreadable is not None:
            return KeyState(key, KeyStatus.UNKNOWN, error=unreadable.reason)
        state = state_of(
            _candidate(key, waiting).entry if waiting is not None else None,
            _candidate(key, running).entry if running is not None else None,
            running.metadata.get("owner", "") if running is not None else "",
            letter_of(letter.metadata, key, letter.created_us, letter.size) if letter is not None else None,
            self._handles.lease_seen(Seen.of(running)) if running is not None else UNSEEN,
        )
        found = running or waiting or letter
        if state is None or found is None:
            raise KeyNotFoundError(f"no key {key!r} in this queue")
        if state.payload is PRESENT:
            state = replace(state, payload=await self._bucket.objects.read_body(found.pin))
        return state

    async def _read(self, key: str) -> tuple[Stored | None, Stored | None, Stored | None]:
        place = self._bucket.place
        folders = (place.queued, place.in_progress, place.dead)
        waiting, running, letter = await asyncio.gather(*(self._read_one(folder + key) for folder in folders))
        return waiting, running, letter

    async def _read_one(self, name: str) -> Stored | None:
        return await self._bucket.objects.read(name) if may_exist(name) else None

    def _unreadable(self, key: str, *found: Stored | None) -> Unreadable | None:
        """The first object of a key that cannot be processed, of those found queued, in progress and dead-lettered."""
        for where, stored in zip(_PLACES, found, strict=True):
            odd = self._bucket.listing.aside.odd(where, key, stored) if stored is not None else None
            if odd is not None:
                return self._handles.unreadable(odd)
        return None

    async def counts(self) -> Counts:
        """The gauges; of a long backlog as of the last listing (see `CountingQueue.counts`)."""
        self._home.check()
        listing = self._bucket.listing
        running = await listing.look()
        await listing.refresh_if_cheap()
        kept = listing.kept
        in_progress = [attempts_of(seen.stored.metadata) for seen in running.keys.values()]
        return Counts(
            queued=kept.startable,
            not_before=kept.delayed,
            twins=len(kept.twins),
            in_progress=len(running.keys),
            dead_lettered=len(listing.letters.generations),
            oldest_queued_seconds=kept.waiting_us(self.clock.wall_us()) / 1e6,
            max_attempts=max((kept.max_attempts, *in_progress)),
            in_progress_by_owner=running.by_owner(),
            unreadable=len(listing.aside),
        )

    # lease

    async def lease(self, request: LeaseRequest) -> Leased:
        """Recover orphans and start keys (see `LeasingQueue.lease`)."""
        self._home.check()
        return await self._leasing.step(request)

    async def wait(self, timeout: timedelta, concurrency: int) -> None:
        """Return as soon as this process knows of a key to start, at the latest after ten seconds, to look again."""
        self._home.check()
        listing = self._bucket.listing
        if not listing.is_known and not listing.under_way:
            await listing.look()
            await listing.refresh()
            self._home.check()  # closed meanwhile: nobody would wake it
        change_us = self._next_change_us(concurrency)
        await self._waiters.wait(min(change_us / 1e6, timeout.total_seconds(), _POLL_SECONDS))

    def _next_change_us(self, concurrency: int) -> int:
        """Microseconds until a lease step may find something to do, as far as is known here."""
        listing, now_us = self._bucket.listing, self._bucket.time.now_us()
        running, changes = listing.running, [10**18]
        lapse_us = running.next_lapse_us()
        if lapse_us is not None:
            changes.append(lapse_us - now_us)
        stored = configuration_of(running.settings)
        if stored.room(concurrency, running.live(now_us)) > 0:
            changes.append(self._next_start_us(stored.starts_per_second))
        return max(min(changes), 0)

    def _next_start_us(self, rate: float | None) -> int:
        listing, wall_us = self._bucket.listing, self.clock.wall_us()
        listing.kept.promote(wall_us)
        if not listing.kept.ready:
            others_us = _LEFT_TO_OTHERS_US if listing.kept.left else 10**18
            due_us = listing.kept.next_due_us()
            return min(others_us, due_us - wall_us if due_us is not None else 10**18)
        return self._bucket.stored.next_start_us(listing.running, rate) if rate is not None else 0

    # configure

    async def configure(self, configuration: Configuration) -> None:
        """Replace the stored settings (see `ConfigurableQueue.configure`)."""
        check_type("configure", configuration, Configuration, "a Configuration")
        self._home.check()
        await self._bucket.stored.write(configuration)
        await self._bucket.listing.look()
        self._waiters.wake()

    async def configuration(self) -> Configuration:
        """The stored settings."""
        self._home.check()
        return await self._bucket.stored.read()


def _candidate(key: str, stored: Stored) -> Candidate:
    return Candidate(key, stored, entry_of(stored.metadata, key, stored.created_us, stored.size))


def open_url(url: QueueURL, *, clock: Clock | None, owner: str) -> GCSQueue:
    """`gs://bucket` or `gs://bucket/prefix`; docs/backends.md lists the settings."""
    name = url.name()
    lease, most = url.lease_times(DEFAULT_LEASE), url.max_payload()
    settings = GCSSettings.from_url(url, lease=lease)
    queue = GCSQueue(settings, name, clock=clock, owner=owner, lease=lease, max_payload=most)
    url.finish()
    return queue
