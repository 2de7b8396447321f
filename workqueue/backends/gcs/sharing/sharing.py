"""Stage 4: which keys this process starts, and how many at once, while other dispatchers are at the same bucket.

Dispatchers that look at the same moment see the same keys first and the same room. Nothing breaks when they race, since
a start is pinned and one of them wins. But each lost race is two requests for nothing. Here is how races are kept rare
and how an exact limit is held: a lease step asks for permits, for keys, and for what is surplus.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from workqueue.backends.gcs.api.preconditions import Pin
from workqueue.backends.gcs.bucket import Bucket
from workqueue.backends.gcs.listing.packed import Candidate, unpack
from workqueue.backends.gcs.listing.running import Running, Seen
from workqueue.backends.gcs.metadata import lease_stamp
from workqueue.backends.gcs.renewal import GCSLease
from workqueue.backends.gcs.sharing.peers import Peers
from workqueue.backends.gcs.sharing.slots import Permit, Slots
from workqueue.backends.gcs.stored_settings import check_settings, configuration_of

__all__ = ["Sharing"]


class Sharing:
    """How this process shares a bucket with other dispatchers.

    Args:
        bucket: the bucket.
        lease_us: how long a lease lasts.
    """

    def __init__(self, bucket: Bucket, lease_us: int) -> None:
        self._bucket = bucket
        self._lease_us = lease_us
        self._exact = bucket.settings.exact
        self._slots = Slots(bucket.objects, bucket.place)
        incarnation = secrets.token_hex(8)  # a restarted process never keeps its predecessor's leases alive
        self._tokens = map(f"{incarnation}-{{}}".format, itertools.count())
        self._peers = Peers(incarnation)

    async def look(self) -> Running:
        """See what is in progress, and who is about.

        Raises:
            StoreUnusableError: the bucket is worked in a way that this process does not keep to.
        """
        bucket = self._bucket
        now_us = bucket.time.now_us()
        running = await bucket.listing.look()
        check_settings(running.settings, exact=self._exact)
        if self._exact:
            await bucket.stored.mark_exact(running)
            await self._slots.sweep(running, now_us)
        self._peers.saw(running.dispatchers(), bucket.time.steady_us())
        return running

    # permits

    @asynccontextmanager
    async def permits(self, running: Running, room: int, wanted: int) -> AsyncIterator[list[Permit]]:
        """What it takes to start up to `wanted` keys: slots, or without an exact limit just tokens.

        Whoever uses a permit removes it from the list; those still in it at the end are given back.

        Args:
            running: the last look.
            room: how many more keys the limits allow.
            wanted: how many keys there are to start.
        """
        asked_us, lapses = self._bucket.time.steady_us(), lease_stamp(self._bucket.time.now_us() + self._lease_us)

        def new_permit() -> Permit:
            return Permit(next(self._tokens), asked_us, lapses)

        if self._exact:
            permits = await self._slots.claim(running.free_slots(room), wanted, new_permit, self._peers)
        else:
            permits = [new_permit() for _ in range(wanted)]
        try:
            yield permits
        finally:
            await asyncio.gather(*(self._slots.free(permit.slot) for permit in permits if permit.slot is not None))

    async def free(self, lease: GCSLease) -> None:
        """Give back the slot that a lease of ours had."""
        await self._slots.free(lease.slot)

    async def free_slot_of(self, key: str, seen: Seen) -> None:
        """Give back the slot of a lease that was taken from its owner."""
        listing = self._bucket.listing
        running = listing.running
        if self._exact and running.keys.get(key) is not seen:  # it was seen by other means than the last look
            running = await listing.look()
        slot = running.slot_of(seen.token)
        if slot is not None:
            await self._slots.free(Pin(slot.name, slot.generation))
            running.slots = {number: each for number, each in running.slots.items() if each.stored is not slot}

    # keys

    async def choose(self, wanted: int) -> list[Candidate]:
        """The next keys to start, in order; of several dispatchers each has its own.

        What is left to others is started by them before long, and then no longer there to be started. So it is taken
        only from a fresh listing, which shows what they do not get to.
        """
        listing, wanted = self._bucket.listing, min(wanted, self._peers.at_once)
        chosen = self._next(wanted)
        if len(chosen) < wanted and listing.kept.left and not listing.is_fresh:
            await listing.fill(wanted - len(chosen))
            chosen += self._next(wanted - len(chosen))
        if len(chosen) < wanted and listing.is_fresh:
            half = -(-listing.kept.left // 2)  # they are at the other half meanwhile
            chosen += map(unpack, listing.kept.take_left(min(wanted - len(chosen), half)))
        return chosen

    def _next(self, wanted: int) -> list[Candidate]:
        """The next keys in order; while others get ahead of us there, some of the same priority from further on."""
        near = self._in_order(wanted * self._peers.reach)
        if len(near) <= wanted:
            return near
        urgent = sum(each.entry.priority == near[0].entry.priority for each in near)
        chosen = set(random.sample(range(urgent), min(wanted, urgent)))
        for number, candidate in enumerate(near):
            if number not in chosen:
                self._bucket.listing.put_back(candidate)
        return [near[number] for number in sorted(chosen)]

    def _in_order(self, most: int) -> list[Candidate]:
        ahead = self._peers.ahead if self._bucket.settings.spread and len(self._peers) > 1 else None
        candidates = iter(lambda: self._bucket.listing.take(ahead), None)
        return list(itertools.islice(candidates, most))

    async def raced(self, tried: int, lost: int, wanted: int) -> None:
        """Learn from the last tries.

        Args:
            tried: how many keys we tried to start.
            lost: with how many of them others were faster.
            wanted: how many more are to be started.
        """
        self._peers.tried(tried, lost)
        if lost:  # see who is at them, too, and what they have
            self._bucket.listing.missed += lost
            await self.look()
            await self._bucket.listing.fill(wanted)

    async def surplus(self, concurrency: int) -> set[str]:
        """The tokens of the newest leases beyond the limit, anybody's, now that others' starts can be seen, too."""
        if self._exact or self._peers.alone:
            return set()
        running = await self.look()
        limit = configuration_of(running.settings).limit(concurrency)
        return {seen.token for seen in running.by_age(self._bucket.time.now_us())[limit:]}
