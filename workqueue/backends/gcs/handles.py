"""Stages 3, 6: the handles of keys in a bucket, and their verbs as moves.

`version` of a handle is what was read: of a queued key its `Candidate`, of one in progress `Seen`, of a dead letter the
`Stored` object, of an owned key its `Hold`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import cast

from workqueue.backends.gcs.api.objects import Deleted, Pin, Stored
from workqueue.backends.gcs.bucket import Bucket
from workqueue.backends.gcs.hold import Hold
from workqueue.backends.gcs.leasing import Leasing
from workqueue.backends.gcs.listing.packed import Candidate
from workqueue.backends.gcs.listing.running import Seen
from workqueue.backends.gcs.metadata import PRESENT, entry_of, letter_of
from workqueue.backends.gcs.moves import Placed, Returning
from workqueue.backends.gcs.renewal import GCSLease
from workqueue.errors import QueueClosedError, StartLostError, StoreError
from workqueue.handles import Dead, Observed, Owned, Queued
from workqueue.lease import LeaseRenewer
from workqueue.rules import Entry, Requeue, dead_lettered, released, requeued

__all__ = ["Handles"]

_Move = Callable[[GCSLease, Hold], Awaitable[Deleted]]


class Handles:
    """The `HandleStore` of one bucket, and the handles it gives out.

    Args:
        bucket: the bucket.
        renewer: keeps the leases won here.
        news: called when there may be something to start.
    """

    def __init__(self, bucket: Bucket, renewer: LeaseRenewer, news: Callable[[], None]) -> None:
        self._bucket = bucket
        self._renewer = renewer
        self._news = news
        self.leasing = Leasing(self, bucket, renewer)
        self.closed = False

    # giving handles out

    async def queued(self, candidates: Iterable[Candidate]) -> list[Queued]:
        """Handles of queued keys."""
        place = self._bucket.place
        found = list(candidates)
        pins = [Pin(place.queued + each.key, each.stored.generation) for each in found]
        entries = await self._with_payloads([each.entry for each in found], pins)
        return [Queued(self, entry, each) for entry, each in zip(entries, found, strict=True)]

    def observed(self, key: str, seen: Seen) -> Observed:
        """The handle of a key in progress."""
        stored = seen.stored
        entry = entry_of(stored.metadata, key, stored.created_us, stored.size)
        lapsed = seen.expires_us <= self._bucket.time.now_us()
        return Observed(self, entry, stored.metadata.get("owner", ""), lapsed, seen)

    async def dead(self, letters: Sequence[tuple[str, Stored]]) -> list[Dead]:
        """Handles of dead letters."""
        found = [letter_of(stored.metadata, key, stored.created_us, stored.size) for key, stored in letters]
        pins = [Pin(stored.name, stored.generation) for _, stored in letters]
        entries = await self._with_payloads([letter.entry for letter in found], pins)
        rows = zip(found, entries, letters, strict=True)
        return [Dead(self, replace(letter, entry=entry), stored) for letter, entry, (_, stored) in rows]

    async def all_dead(self) -> AsyncIterator[Dead]:
        """Handles of every dead letter, read page by page."""
        async for page in self._bucket.listing.dead_letters():
            for letter in await self.dead(page):
                yield letter

    async def _with_payloads(self, entries: Sequence[Entry], pins: Sequence[Pin]) -> list[Entry]:
        return list(await asyncio.gather(*map(self._with_payload, entries, pins)))

    async def _with_payload(self, entry: Entry, pin: Pin) -> Entry:
        if entry.payload is not PRESENT:
            return entry
        return replace(entry, payload=await self._bucket.objects.read_body(pin))

    # queued keys

    async def start(self, queued: Queued) -> Owned:
        self._check_open()
        candidate = cast(Candidate, queued.version)
        if queued.entry.not_before_us > self._bucket.clock.wall_us():
            raise StartLostError(f"the time of {queued.key!r} has not come")
        owned = await self.leasing.start(candidate)
        if owned is None:
            raise StartLostError
        return owned

    async def drop_queued(self, queued: Queued) -> bool:
        self._check_open()
        candidate = cast(Candidate, queued.version)
        deleted = await self._bucket.objects.delete(Pin(self._bucket.place.queued + queued.key, *candidate.version))
        if deleted.is_gone:
            self._bucket.listing.unqueued(queued.key)
        return deleted.by_us

    # owned keys

    async def complete(self, owned: Owned) -> bool:
        return await self._settle(owned, lambda lease, hold: self._bucket.moves.complete(lease.pin, hold.letter))

    async def requeue(self, owned: Owned, how: Requeue) -> bool:
        now_us = self._bucket.clock.wall_us()
        back = requeued(owned.entry, how, now_us)
        applied = await self._settle(owned, lambda lease, hold: self._return(lease, hold, back, attempted_us=now_us))
        if applied:
            self._bucket.metrics.requeued(back.not_before_us - now_us if back.not_before_us else 0)
        return applied

    async def release(self, owned: Owned) -> bool:
        back = released(owned.entry)
        return await self._settle(owned, lambda lease, hold: self._return(lease, hold, back))

    async def dead_letter(self, owned: Owned, error: str) -> bool:
        letter = dead_lettered(owned.entry, error, self._bucket.clock.wall_us())

        async def move(lease: GCSLease, hold: Hold) -> Deleted:
            deleted, generation = await self._bucket.moves.dead_letter(lease.pin, letter, hold.metadata)
            if generation:
                self._bucket.listing.dead_lettered(owned.key, generation)
            return deleted

        return await self._settle(owned, move)

    def abandon(self, owned: Owned) -> None:
        cast(Hold, owned.version).abandoned = True
        self._renewer.drop(owned.lease)

    async def _return(self, lease: GCSLease, hold: Hold, back: Entry, attempted_us: int = 0) -> Deleted:
        release = not attempted_us
        how = Returning(lease.pin, back, hold.metadata, release=release, attempted_us=attempted_us)
        deleted, placed = await self._bucket.moves.requeue(how)
        self._placed(lease.key, placed)
        return deleted

    async def _settle(self, owned: Owned, move: _Move) -> bool:
        """End the attempt by `move`, if nothing ended it yet.

        A move that fails is undecided: the lease is kept for the next try, which finds out what the failed one did.
        """
        self._check_open()
        lease, hold = cast(GCSLease, owned.lease), cast(Hold, owned.version)
        async with hold.turn:
            if hold.over or lease.lost.is_set():
                lease.lost.set()
                return False
            self._renewer.drop(lease)
            try:
                deleted = await move(lease, hold)
                await self._bucket.slots.free(lease.slot)
            except StoreError:
                hold.unsure = True
                if not hold.abandoned:
                    self._renewer.keep(lease)
                raise
            except asyncio.CancelledError:
                hold.unsure = True  # and not kept: whoever cancels may be gone for good
                raise
            hold.over = True
        # While the lease lives nobody else takes the object away: what is there now was started after our settle.
        alive = self._bucket.time.steady_us() < lease.deadline_us
        applied = deleted.by_us or (hold.unsure and (alive or deleted is Deleted.GONE))
        if not applied:
            lease.lost.set()
        self._left(lease.key)
        return applied

    # keys in progress, as observed

    async def requeue_observed(self, observed: Observed, how: Requeue) -> bool:
        now_us, seen = self._bucket.clock.wall_us(), cast(Seen, observed.version)
        back = requeued(observed.entry, how, now_us)
        deleted, placed = await self._bucket.moves.requeue(
            Returning(seen.stored.pin, back, seen.stored.metadata, attempted_us=now_us)
        )
        self._placed(observed.key, placed)
        return await self._taken(observed.key, seen, deleted)

    async def dead_letter_observed(self, observed: Observed, error: str) -> bool:
        seen = cast(Seen, observed.version)
        letter = dead_lettered(observed.entry, error, self._bucket.clock.wall_us())
        deleted, generation = await self._bucket.moves.dead_letter(seen.stored.pin, letter, seen.stored.metadata)
        if generation:
            self._bucket.listing.dead_lettered(observed.key, generation)
        return await self._taken(observed.key, seen, deleted)

    async def _taken(self, key: str, seen: Seen, deleted: Deleted) -> bool:
        if not deleted.by_us:
            return False
        running = self._bucket.listing.running
        if self._bucket.settings.exact and running.slot_of(seen.token) is None:
            running = await self._bucket.listing.look()
        slot = running.slot_of(seen.token)
        if slot is not None:
            await self._bucket.slots.free(Pin(slot.name, slot.generation))
        self._left(key)
        return True

    # dead letters

    async def redrive(self, dead: Dead) -> bool:
        self._check_open()
        stored, now_us = cast(Stored, dead.version), self._bucket.clock.wall_us()
        placed = await self._bucket.moves.redrive(stored.pin, dead.letter, stored.metadata, now_us)
        if placed is not None:
            self._bucket.listing.undead(dead.key)
        self._placed(dead.key, placed)
        return placed is not None

    async def drop_dead(self, dead: Dead) -> bool:
        self._check_open()
        deleted = await self._bucket.objects.delete(cast(Stored, dead.version).pin)
        if deleted.is_gone:
            self._bucket.listing.undead(dead.key)
        return deleted.by_us

    def _placed(self, key: str, placed: Placed | None) -> None:
        if placed is not None:
            self._bucket.listing.queued(Candidate(key, placed.stored, placed.entry))
            self._news()

    def _left(self, key: str) -> None:
        self._bucket.listing.settled(key)
        self._news()

    def _check_open(self) -> None:
        if self.closed:
            raise QueueClosedError
