"""Stages 3-4: one lease step on a bucket: look at what is in progress, recover orphans, start keys, hand surplus back.

The step is many requests, so its limit is soft: dispatchers that look at the same moment see the same room. Each looks
again after it started keys and hands back the newest surplus before anything is called. With `exact=true` slots decide.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from workqueue.backends.gcs.api.objects import Pin
from workqueue.backends.gcs.bucket import Bucket
from workqueue.backends.gcs.hold import Hold
from workqueue.backends.gcs.limits import check_settings, configuration_of
from workqueue.backends.gcs.listing.packed import Candidate, unpack
from workqueue.backends.gcs.listing.running import Running, Seen
from workqueue.backends.gcs.metadata import entry_of, lease_stamp
from workqueue.backends.gcs.moves import Returning
from workqueue.backends.gcs.renewal import GCSLease
from workqueue.backends.gcs.sharing.peers import Peers
from workqueue.backends.gcs.sharing.slots import Slot
from workqueue.clock import from_us
from workqueue.errors import StoreError
from workqueue.handles import HandleStore, Owned
from workqueue.interface import Leased, LeaseRequest, RecoveredOrphan
from workqueue.lease import LeaseRenewer
from workqueue.orphan import ORPHAN_ERROR, orphan_wait
from workqueue.rules import Requeue, dead_lettered, requeued

__all__ = ["Leasing"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Stamp:
    """When the leases of one step were asked for, by the steady clock, and the text that says when they lapse."""

    sent_us: int
    text: str


class Leasing:
    """Lease steps on one bucket, one at a time.

    Args:
        store: the verbs of the handles given out.
        bucket: the bucket.
        renewer: keeps the leases won.
        lease_us: how long a lease lasts.
    """

    def __init__(self, store: HandleStore, bucket: Bucket, renewer: LeaseRenewer) -> None:
        self._store = store
        self._bucket = bucket
        self._renewer = renewer
        self._lease_us = renewer.times.duration_us
        self._incarnation = secrets.token_hex(8)  # a restarted process never keeps its predecessor's leases alive
        self._numbers = itertools.count()
        self._peers = Peers(self._incarnation)
        self._turn = asyncio.Lock()

    async def step(self, request: LeaseRequest) -> Leased:
        """Recover orphans, then start keys (see `LeasingQueue.lease`)."""
        async with self._turn:
            running = await self._look()
            recovered, errors = await self._recover(running, request)
            begun: list[Owned] = []
            try:
                await self._start(running, self._room(running, request), begun, errors)
                begun = await self._hand_back_surplus(begun, request, errors)
            except StoreError as error:
                if not begun and not recovered:
                    raise
                errors.append(error)
            return Leased(begun, recovered, errors)

    async def start(self, candidate: Candidate) -> Owned | None:
        """Start one listed key, whatever the limit; None if it changed, went, or is in progress."""
        running = self._bucket.listing.running
        if self._bucket.settings.exact:
            running = await self._look()
        slots = await self._slots(running, 1, 1, stamp := self._stamp())
        if not slots:
            return None
        owned = await self._begin(candidate, slots[0], stamp)
        if owned is None:
            await self._free(slots)
        return owned

    async def _look(self) -> Running:
        bucket, now_us = self._bucket, self._bucket.time.now_us()
        running = await bucket.listing.look()
        check_settings(running.settings, exact=bucket.settings.exact)
        if bucket.settings.exact:
            await bucket.stored.mark_exact(running)
            await bucket.slots.sweep(running, now_us)
        strangers = {"?"} if any(not seen.token for seen in running.keys.values()) else set()
        self._peers.saw(running.incarnations() | strangers, bucket.time.steady_us())
        return running

    def _room(self, running: Running, request: LeaseRequest) -> int:
        """How many keys may be started now under all limits but the rate."""
        live = running.live(self._bucket.time.now_us())
        return max(min(request.limit, configuration_of(running.settings).room(request.concurrency, live)), 0)

    # orphans

    async def _recover(self, running: Running, request: LeaseRequest) -> tuple[list[RecoveredOrphan], list[Exception]]:
        orphans = running.orphans(self._bucket.time.now_us())
        steps = [self._recover_one(running, key, seen, request) for key, seen in orphans.items()]
        recovered, errors = await _all(steps)
        if recovered:
            self._bucket.metrics.expired(len(recovered))
        return recovered, errors

    async def _recover_one(
        self, running: Running, key: str, seen: Seen, request: LeaseRequest
    ) -> RecoveredOrphan | None:
        bucket, stored = self._bucket, seen.stored
        entry, now_us = entry_of(stored.metadata, key, stored.created_us, stored.size), bucket.clock.wall_us()
        wait = orphan_wait(entry.attempts, request.max_retry, request.backoff)
        if wait is None:
            letter = dead_lettered(entry, ORPHAN_ERROR, now_us)
            deleted, generation = await bucket.moves.dead_letter(stored.pin, letter, stored.metadata)
            if generation:
                bucket.listing.dead_lettered(key, generation)
        else:
            back = requeued(entry, Requeue(backoff=wait), now_us)
            deleted, placed = await bucket.moves.requeue(
                Returning(stored.pin, back, stored.metadata, attempted_us=now_us)
            )
            if placed is not None:
                bucket.listing.queued(Candidate(key, placed.stored, placed.entry))
        if not deleted.by_us:
            return None
        bucket.listing.settled(key)
        await self._free_slot_of(running, seen)
        owner, first = stored.metadata.get("owner", ""), from_us(entry.first_queued_us)
        return RecoveredOrphan(key, entry.attempts, owner, entry.priority, first, wait is None)

    async def _free_slot_of(self, running: Running, seen: Seen) -> None:
        slot = running.slot_of(seen.token)
        if slot is not None:
            await self._bucket.slots.free(Pin(slot.name, slot.generation))
            running.slots = {number: each for number, each in running.slots.items() if each.stored is not slot}

    # starting

    async def _start(self, running: Running, room: int, begun: list[Owned], errors: list[Exception]) -> None:
        """Start up to `room` keys; those started are in `begun` even if this raises."""
        if room <= 0:
            return
        listing, stored = self._bucket.listing, self._bucket.stored
        rate = configuration_of(running.settings).starts_per_second
        if rate is not None and not stored.saved_up(running, rate):
            return
        await listing.fill(room)
        wanted = min(room, listing.kept.startable)
        if rate is not None and wanted:
            wanted = await stored.spend(running, rate, wanted)
        slots = await self._slots(running, room, wanted, stamp := self._stamp())
        try:
            while slots and (chosen := await self._choose(min(len(slots), self._peers.at_once))):
                tickets, slots = slots[: len(chosen)], slots[len(chosen) :]
                steps = [self._try(*each, stamp, slots) for each in zip(chosen, tickets, strict=True)]
                owned, failed = await _all(steps)
                begun += owned
                errors += failed
                lost = len(chosen) - len(owned) - len(failed)
                self._peers.tried(len(chosen), lost)
                if lost:  # others are at it: see who, and what they have
                    listing.missed += lost
                    await self._look()
                    await listing.fill(len(slots))
        finally:
            await self._free(slots)

    async def _try(self, candidate: Candidate, slot: Slot, stamp: _Stamp, unused: list[Slot]) -> Owned | None:
        """Start one key; if another was faster, or it changed, its slot goes back to the `unused` ones."""
        listing, moves = self._bucket.listing, self._bucket.moves
        owned = await self._begin(candidate, slot, stamp)
        if owned is not None:
            return owned
        fresh = await moves.reread(candidate)
        if fresh is None:
            listing.unqueued(candidate.key)
        elif fresh.version == candidate.version:
            listing.kept.add_twin(fresh)
        elif fresh.entry.not_before_us > self._bucket.clock.wall_us():
            listing.queued(fresh)
        elif (owned := await self._begin(fresh, slot, stamp)) is not None:
            return owned
        unused.append(slot)
        return None

    async def _begin(self, candidate: Candidate, slot: Slot, stamp: _Stamp) -> Owned | None:
        bucket, key = self._bucket, candidate.key
        begun = await bucket.moves.start(candidate, slot.token, bucket.identity.owner, stamp.text)
        if begun is None:
            return None
        pin = Pin(bucket.place.in_progress + key, begun.stored.generation)
        lease = GCSLease(key, slot.token, pin, slot.pin if bucket.settings.exact else None)
        hold = Hold(begun.stored.metadata, bucket.listing.letter_of(candidate))
        bucket.listing.started(key, begun.stored)
        self._renewer.hold(lease, stamp.sent_us)
        bucket.metrics.started(candidate.entry, bucket.clock.wall_us())
        return Owned(self._store, begun.entry, lease, hold)

    async def _choose(self, wanted: int) -> Sequence[Candidate]:
        """The next keys in order, of several dispatchers each its own.

        What is left to others is started by them before long, and then no longer there to be started: it is taken only
        from a fresh listing, which shows what they do not get to.
        """
        listing = self._bucket.listing
        chosen = self._take(wanted)
        if len(chosen) < wanted and listing.kept.left and not listing.is_fresh:
            await listing.fill(wanted - len(chosen))
            chosen += self._take(wanted - len(chosen))
        if len(chosen) < wanted and listing.is_fresh:
            half = -(-listing.kept.left // 2)  # they are at the other half meanwhile
            chosen += map(unpack, listing.kept.take_left(min(wanted - len(chosen), half)))
        return chosen

    def _take(self, wanted: int) -> list[Candidate]:
        """The next keys in order; while others get ahead of us there, some of the same priority from further on."""
        listing = self._bucket.listing
        ahead = self._peers.ahead if self._bucket.settings.spread and len(self._peers) > 1 else None
        near = list(itertools.islice(iter(lambda: listing.take(ahead), None), wanted * self._peers.reach))
        if len(near) <= wanted:
            return near
        urgent = [number for number, each in enumerate(near) if each.entry.priority == near[0].entry.priority]
        chosen = sorted(random.sample(urgent, min(wanted, len(urgent))))
        for number in set(range(len(near))).difference(chosen):
            listing.put_back(near[number])
        return [near[number] for number in chosen]

    async def _hand_back_surplus(
        self, begun: list[Owned], request: LeaseRequest, errors: list[Exception]
    ) -> list[Owned]:
        """Release those of our newest leases that are beyond the limit, now that others' starts can be seen, too."""
        if not begun or self._bucket.settings.exact or self._peers.alone:
            return begun
        running = await self._look()
        now_us, limit = self._bucket.time.now_us(), configuration_of(running.settings).limit(request.concurrency)
        live = [seen for seen in running.keys.values() if seen.expires_us > now_us]
        live.sort(key=lambda seen: (seen.stored.created_us, seen.stored.generation))
        surplus = {seen.token for seen in live[limit:]}
        ours = [owned for owned in begun if owned.lease.token in surplus]
        _, failed = await _all([_released(owned) for owned in ours])
        errors += failed
        return [owned for owned in begun if owned not in ours]

    # slots and tokens

    async def _slots(self, running: Running, room: int, wanted: int, stamp: _Stamp) -> list[Slot]:
        """What it takes to start up to `wanted` keys: slots, or without an exact limit just tokens."""
        tokens = (self._token() for _ in itertools.count())
        if self._bucket.settings.exact:
            free = running.free_slots(room)
            return await self._bucket.slots.claim(free, wanted, tokens, self._peers, stamp.text)
        return [Slot(Pin("", 0), token) for token in itertools.islice(tokens, wanted)]

    async def _free(self, slots: Sequence[Slot]) -> None:
        if self._bucket.settings.exact:
            await asyncio.gather(*(self._bucket.slots.free(slot.pin) for slot in slots))

    def _token(self) -> str:
        return f"{self._incarnation}-{next(self._numbers)}"

    def _stamp(self) -> _Stamp:
        time = self._bucket.time
        return _Stamp(time.steady_us(), lease_stamp(time.now_us() + self._lease_us))


async def _released(owned: Owned) -> None:
    try:
        await owned.release()
    except StoreError:
        owned.abandon()  # it was not called and must not be; whoever recovers it finds it as it was
        raise


async def _all(steps: Sequence[Awaitable[_T | None]]) -> tuple[list[_T], list[Exception]]:
    """Take every step at once; the results that are not None, and the store's errors."""
    answers = await asyncio.gather(*steps, return_exceptions=True)
    done: list[_T] = []
    errors: list[Exception] = []
    for answer in answers:
        if isinstance(answer, StoreError):
            errors.append(answer)
        elif isinstance(answer, BaseException):
            raise answer
        elif answer is not None:
            done.append(answer)
    return done, errors
