"""The handles of keys in a bucket, and their verbs as moves.

`version` of a handle is what was read: of a queued key its `Candidate`, of one in progress `Seen`, of a dead letter the
`Stored` object, of an owned key its `Hold`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import cast

from workqueue.backends.gcs.aftermath import Aftermath
from workqueue.backends.gcs.api.objects import Deleted, Stored
from workqueue.backends.gcs.api.preconditions import Pin
from workqueue.backends.gcs.bucket import Bucket
from workqueue.backends.gcs.listing.aside import Odd
from workqueue.backends.gcs.listing.packed import Candidate
from workqueue.backends.gcs.listing.running import Seen
from workqueue.backends.gcs.metadata import PRESENT, Stamps, began_us, entry_of, letter_of, time_text
from workqueue.backends.gcs.moves import Placed, Returning
from workqueue.backends.gcs.renewal import GCSLease
from workqueue.backends.gcs.sharing.sharing import Sharing
from workqueue.backends.gcs.sharing.slots import Permit
from workqueue.errors import StartLostError
from workqueue.handles import Dead, LeaseTimesSeen, Observed, Owned, Queued, Unreadable, fenced
from workqueue.home import Home
from workqueue.lease import LeaseRenewer
from workqueue.rules import Entry, Requeue, dead_lettered, released, requeued

__all__ = ["APPLIED", "Earlier", "Handles", "Hold"]


@dataclass(slots=True, eq=False)
class Hold:
    """What an owner remembers of its object in progress until it settles.

    Args:
        metadata: what the object carries along.
        letter: the generation of the key's dead letter; 0 = there is none, None = nobody knows.
        turn: settles take turns, since each is several requests and only one may apply.
        over: a settle was applied, or found the lease gone.
        unsure: a settle failed, and may have been applied all the same: its last request was not answered.
        abandoned: the lease is no longer kept alive.
    """

    metadata: Mapping[str, str]
    letter: int | None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    over: bool = False
    unsure: bool = False
    abandoned: bool = False


class Earlier(Enum):
    """Whether an earlier settle of the same attempt may have been applied."""

    NONE = "there was none, or it changed nothing"
    UNSURE = "one failed without an answer; the lease still lives"
    UNSURE_AND_LAPSED = "one failed without an answer; the lease has lapsed since"


APPLIED: Mapping[tuple[Deleted, Earlier], bool] = {
    # We deleted the object in progress: whatever an earlier settle did, it had not come that far.
    (Deleted.DONE, Earlier.NONE): True,
    (Deleted.DONE, Earlier.UNSURE): True,
    (Deleted.DONE, Earlier.UNSURE_AND_LAPSED): True,
    # An earlier try of this delete may have done it. Only an answer was lost; while it was tried the lease was ours.
    (Deleted.RESENT, Earlier.NONE): True,
    (Deleted.RESENT, Earlier.UNSURE): True,
    (Deleted.RESENT, Earlier.UNSURE_AND_LAPSED): True,
    # Somebody else took it away: a recovery after the lease had lapsed, or an operator.
    (Deleted.GONE, Earlier.NONE): False,
    # A live lease is taken away by its owner only (or by an operator): the earlier settle did it.
    (Deleted.GONE, Earlier.UNSURE): True,
    # The earlier settle or a recovery, and nobody runs the key now. More likely it was ours, which came first.
    (Deleted.GONE, Earlier.UNSURE_AND_LAPSED): True,
    # Another attempt is under way: the key was recovered from us and started again.
    (Deleted.CHANGED, Earlier.NONE): False,
    # Another attempt is under way, and our lease lives: it began after our earlier settle was applied.
    (Deleted.CHANGED, Earlier.UNSURE): True,
    # Another attempt is under way, and it may have begun by a recovery: a stale owner must not report success.
    (Deleted.CHANGED, Earlier.UNSURE_AND_LAPSED): False,
}
"""Whether a settle was applied: by what its delete of the object in progress found, and by what went before."""

_Move = Callable[[GCSLease, Hold], Awaitable[Deleted]]


class Handles:
    """The `HandleStore` of one bucket, and the handles it gives out.

    Args:
        bucket: the bucket.
        renewer: keeps the leases won here.
        sharing: permits starts, and takes slots back.
        news: called when there may be something to start.
        home: where the queue is open.
    """

    def __init__(
        self, bucket: Bucket, renewer: LeaseRenewer, sharing: Sharing, news: Callable[[], None], home: Home
    ) -> None:
        self._bucket = bucket
        self._renewer = renewer
        self._sharing = sharing
        self._news = news
        self.aftermath = Aftermath()
        """Ends what cancelled callers began."""
        self._home = home

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
        return Observed(self, entry, stored.metadata.get("owner", ""), lapsed, seen, self.lease_seen(seen))

    def lease_seen(self, seen: Seen) -> LeaseTimesSeen:
        """When its attempt began and its lease lapses, on the wall clock."""
        began = began_us(seen.stored.metadata, seen.stored.created_us)
        store_is_behind_us = self._bucket.clock.wall_us() - self._bucket.time.now_us()
        return LeaseTimesSeen(began, seen.expires_us + store_is_behind_us)

    async def dead(self, letters: Sequence[tuple[str, Stored]]) -> list[Dead]:
        """Handles of dead letters."""
        found = [letter_of(stored.metadata, key, stored.created_us, stored.size) for key, stored in letters]
        pins = [Pin(stored.name, stored.generation) for _, stored in letters]
        entries = await self._with_payloads([letter.entry for letter in found], pins)
        rows = zip(found, entries, letters, strict=True)
        return [Dead(self, replace(letter, entry=entry), stored) for letter, entry, (_, stored) in rows]

    async def all_dead(self, until_us: int) -> AsyncIterator[Dead]:
        """Handles of all dead letters but those from since `until_us`, read page by page.

        A key that fails again after a re-drive is not met twice. One from the future is from before the clock was set
        back.
        """
        self._home.check()
        async for page in self._bucket.listing.dead_letters():
            for dead in await self.dead(page):
                if not until_us < dead.letter.failed_us <= self._bucket.clock.wall_us():
                    yield dead

    def unreadable(self, odd: Odd) -> Unreadable:
        """The handle of what is set aside."""
        return Unreadable(odd.key, odd.where, odd.reason, partial(self._remove, odd))

    async def _remove(self, odd: Odd) -> bool:
        self._home.check()
        pin = Pin(self._bucket.place.folder(odd.where) + odd.key, *odd.version)
        deleted = await self._bucket.objects.delete(pin)
        if deleted.is_gone:
            self._bucket.listing.aside.remove(odd)
        return deleted.by_us

    async def _with_payloads(self, entries: Sequence[Entry], pins: Sequence[Pin]) -> list[Entry]:
        return list(await asyncio.gather(*map(self._with_payload, entries, pins)))

    async def _with_payload(self, entry: Entry, pin: Pin) -> Entry:
        if entry.payload is not PRESENT:
            return entry
        return replace(entry, payload=await self._bucket.objects.read_body(pin))

    # queued keys

    async def start(self, queued: Queued) -> Owned:
        self._home.check()
        if queued.entry.not_before_us > self._bucket.clock.wall_us():
            raise StartLostError(f"the time of {queued.key!r} has not come")
        owned = await self.aftermath.run(self._start_one(cast(Candidate, queued.version)), _hand_back)
        if owned is None:
            raise StartLostError
        return owned

    async def _start_one(self, candidate: Candidate) -> Owned | None:
        """Start one key, whatever the limit; None if it changed, went, or is in progress, or no slot is free."""
        running = await self._sharing.look() if self._bucket.settings.exact else self._bucket.listing.running
        async with self._sharing.permits(running, 1, 1) as permits:
            if not permits:
                return None
            permit = permits.pop()
            owned = await self.begin(candidate, permit)
            if owned is None:
                permits.append(permit)
            return owned

    async def begin(self, candidate: Candidate, permit: Permit) -> Owned | None:
        """Start one key; None if another was faster, or the entry changed since it was read.

        Raises:
            StoreUnavailableError: it is unknown whether it was started: it must be left to its lease.
        """
        bucket, key = self._bucket, candidate.key
        stamps = Stamps(expires=permit.lapses, began=time_text(bucket.clock.wall_us()))
        begun = await bucket.moves.start(candidate, permit.token, bucket.identity.owner, stamps)
        if begun is None:
            return None
        lease = GCSLease(key, permit.token, Pin(bucket.place.in_progress + key, begun.stored.generation), permit.slot)
        hold = Hold(begun.stored.metadata, bucket.listing.letter_of(candidate))
        bucket.listing.started(key, begun.stored)
        self._renewer.hold(lease, permit.asked_us)
        bucket.metrics.started(candidate.entry, bucket.clock.wall_us())
        return Owned(self, begun.entry, lease, hold)

    async def drop_queued(self, queued: Queued) -> bool:
        self._home.check()
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
        self._home.check()
        hold = cast(Hold, owned.version)
        async with hold.turn:
            if hold.over:
                owned.lost.set()
                return False
            try:
                return await fenced(owned, self._renewer, partial(self._end, owned, move), lost=False)
            except BaseException:
                hold.unsure = True
                if hold.abandoned:
                    self._renewer.drop(owned.lease)
                raise

    async def _end(self, owned: Owned, move: _Move) -> bool:
        lease, hold = cast(GCSLease, owned.lease), cast(Hold, owned.version)
        deleted = await move(lease, hold)
        await self._sharing.free(lease)
        hold.over = True
        self._left(lease.key)
        return APPLIED[deleted, self._earlier(lease, hold)]

    def _earlier(self, lease: GCSLease, hold: Hold) -> Earlier:
        if not hold.unsure:
            return Earlier.NONE
        lives = self._bucket.time.steady_us() < lease.deadline_us
        return Earlier.UNSURE if lives else Earlier.UNSURE_AND_LAPSED

    # keys in progress, as observed

    async def requeue_observed(self, observed: Observed, how: Requeue) -> bool:
        self._home.check()
        now_us, seen = self._bucket.clock.wall_us(), cast(Seen, observed.version)
        back = requeued(observed.entry, how, now_us)
        deleted, placed = await self._bucket.moves.requeue(
            Returning(seen.stored.pin, back, seen.stored.metadata, attempted_us=now_us)
        )
        self._placed(observed.key, placed)
        return await self._taken(observed.key, seen, deleted)

    async def dead_letter_observed(self, observed: Observed, error: str) -> bool:
        self._home.check()
        seen = cast(Seen, observed.version)
        letter = dead_lettered(observed.entry, error, self._bucket.clock.wall_us())
        deleted, generation = await self._bucket.moves.dead_letter(seen.stored.pin, letter, seen.stored.metadata)
        if generation:
            self._bucket.listing.dead_lettered(observed.key, generation)
        return await self._taken(observed.key, seen, deleted)

    async def _taken(self, key: str, seen: Seen, deleted: Deleted) -> bool:
        if deleted.by_us:
            await self._sharing.free_slot_of(key, seen)
            self._left(key)
        return deleted.by_us

    # dead letters

    async def redrive(self, dead: Dead) -> bool:
        self._home.check()
        stored, now_us = cast(Stored, dead.version), self._bucket.clock.wall_us()
        placed = await self._bucket.moves.redrive(stored.pin, dead.letter, stored.metadata, now_us)
        if placed is not None:
            self._bucket.listing.undead(dead.key)
        self._placed(dead.key, placed)
        return placed is not None

    async def drop_dead(self, dead: Dead) -> bool:
        self._home.check()
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


async def _hand_back(owned: Owned | None) -> None:
    if owned is not None:
        await owned.release()
