"""Stage 4, `exact=true`: slots, so that no two dispatchers can start beyond the limit together.

A slot is an object with a number below the limit, created only if there is none of that number. Who has it may start
one key, and its lease is renewed with the key's. Everybody tries the lowest free numbers, and no more of them than
there is room, so that the limit holds while it is being lowered, too.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from workqueue.backends.gcs.address import Place
from workqueue.backends.gcs.api.objects import Objects, Stored
from workqueue.backends.gcs.api.preconditions import Pin
from workqueue.backends.gcs.listing.running import Running
from workqueue.backends.gcs.metadata import lease_metadata
from workqueue.backends.gcs.sharing.peers import Peers
from workqueue.errors import StoreError

__all__ = ["Permit", "Slots"]

log = logging.getLogger(__name__)

_MEETINGS = 2  # in a row, and we leave what is still free to the others


@dataclass(frozen=True, slots=True)
class Permit:
    """What it takes to start one key.

    Args:
        token: of the lease that the key will have.
        asked_us: when the lease was asked for, by the steady clock.
        lapses: when it lapses, as the object in progress says it.
        slot: the slot that the key takes under an exact limit.
    """

    token: str
    asked_us: int
    lapses: str
    slot: Pin | None = None


class Slots:
    """The slots of one bucket.

    Args:
        objects: the bucket.
        place: the names in it.
    """

    def __init__(self, objects: Objects, place: Place) -> None:
        self._objects = objects
        self._place = place

    async def sweep(self, running: Running, now_us: int) -> None:
        """Free the slots whose leases lapsed: their keys' leases, renewed after theirs, have lapsed, too."""
        lapsed = {number: seen for number, seen in running.slots.items() if seen.expires_us <= now_us}
        for number, seen in lapsed.items():
            await self._objects.delete(seen.stored.pin)
            del running.slots[number]

    async def claim(
        self, free: Sequence[int], wanted: int, new_permit: Callable[[], Permit], peers: Peers
    ) -> list[Permit]:
        """Take up to `wanted` slots.

        Others who look at the same moment see the same slots free. So each takes its own ones at once, and feels its
        way through those of others, until it meets somebody there; then it keeps to its own for a while.

        Args:
            free: which numbers may be taken.
            wanted: how many slots are asked for.
            new_permit: makes a permit without a slot; each try takes a new one.
            peers: says which slots are whose.
        """
        if not wanted:
            return []
        shuffled = random.sample(free, len(free))  # a peer that does not know of us has other ideas of what is its own
        own = [number for number in shuffled if not peers.ahead(str(number))]
        others = [number for number in shuffled if peers.ahead(str(number))]

        def claim(number: int) -> Awaitable[Permit | None]:
            return self._claim(number, new_permit())

        permits, _ = await _claim_some(claim, own, wanted, at_once=len(own))
        if permits and peers.crowded:
            return permits
        more, met = await _claim_some(claim, others, wanted - len(permits), at_once=1)
        if met:
            peers.met()
        return permits + more

    async def _claim(self, number: int, permit: Permit) -> Permit | None:
        name = f"{self._place.slots}{number:06d}"
        copied = await self._objects.create(name, lease_metadata(permit.token, permit.lapses))
        made = copied.made or (await self._with_token(name, permit.token) if copied.resent else None)
        return replace(permit, slot=Pin(name, made.generation)) if made is not None else None

    async def _with_token(self, name: str, token: str) -> Stored | None:
        found = await self._objects.read(name)
        return found if found is not None and found.metadata.get("lease-token") == token else None

    async def free(self, pin: Pin | None) -> None:
        """Give a slot back; one that cannot be given back now lapses with its lease."""
        if pin is None:
            return
        try:
            await self._objects.delete(pin)
        except StoreError as error:
            log.warning("a slot could not be freed, it is once its lease lapses: %s", error)


async def _claim_some(
    claim: Callable[[int], Awaitable[Permit | None]], free: list[int], wanted: int, at_once: int
) -> tuple[list[Permit], bool]:
    """Take slots, first `at_once`, then twice as many; also returns whether somebody else is at them, too."""
    permits: list[Permit] = []
    met = 0
    while free and len(permits) < wanted and met < _MEETINGS:
        width = min(at_once, wanted - len(permits))
        tries, free = free[:width], free[width:]
        claims = await asyncio.gather(*map(claim, tries), return_exceptions=True)
        permits += [each for each in claims if isinstance(each, Permit)]
        for each in claims:
            if isinstance(each, BaseException) and not isinstance(each, StoreError):
                raise each
        at_once, met = (2 * at_once, 0) if all(isinstance(each, Permit) for each in claims) else (1, met + 1)
    return permits, met == _MEETINGS
