"""Stage 4, `exact=true`: slots, so that no two dispatchers can start beyond the limit together.

A slot is an object with a number below the limit, created only if there is none of that number; who has it may start
one key, and its lease is renewed with the key's. Everybody tries the lowest free numbers and no more of them than there
is room, so that the limit holds while it is being lowered, too.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass

from workqueue.backends.gcs_address import Place
from workqueue.backends.gcs_objects import Objects, Pin, Stored
from workqueue.backends.gcs_running import Running
from workqueue.errors import StoreError

__all__ = ["Slot", "Slots"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that this process has: the object, and the token of the lease that it is for."""

    pin: Pin
    token: str


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

    async def claim(self, running: Running, room: int, wanted: int, tokens: Iterable[str], stamp: str) -> list[Slot]:
        """Take up to `wanted` slots, given that there is `room` for so many.

        Args:
            running: the listing that showed how much room there is.
            room: how many more leases may live.
            wanted: how many slots are asked for, at most `room`.
            tokens: gives each slot the token of the lease it is for.
            stamp: when that lease lapses.
        """
        free = [number for number in range(room + len(running.slots)) if number not in running.slots][:room]
        random.shuffle(free)  # within the free ones any will do, and others are choosing, too
        slots: list[Slot] = []
        while free and len(slots) < wanted:
            tries, free = free[: wanted - len(slots)], free[wanted - len(slots) :]
            claims = [self._claim(number, token, stamp) for number, token in zip(tries, tokens, strict=False)]
            for claimed in await asyncio.gather(*claims, return_exceptions=True):
                if isinstance(claimed, Slot):
                    slots.append(claimed)
                elif isinstance(claimed, BaseException) and not isinstance(claimed, StoreError):
                    raise claimed
        return slots

    async def _claim(self, number: int, token: str, stamp: str) -> Slot | None:
        name = f"{self._place.slots}{number:06d}"
        copied = await self._objects.create(name, {"lease-token": token, "lease-expiration": stamp})
        made = copied.made or (await self._with_token(name, token) if copied.resent else None)
        return Slot(Pin(name, made.generation), token) if made is not None else None

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
