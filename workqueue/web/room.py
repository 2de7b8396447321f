"""How many connections a server has room for, and who makes way when it is full."""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["Guest", "Room"]


class Guest(Protocol):
    """A connection."""

    @property
    def busy(self) -> bool:
        """Whether it has asked for something and waits for the answer."""

    def close(self) -> None:
        """Send what is still to be sent, then end it."""

    def abort(self) -> None:
        """End it at once."""


class Room:
    """Whoever is connected. Silent connections must not keep a probe out: the oldest of them makes way for a new one.

    Args:
        most: how many it holds.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._guests: dict[Guest, None] = {}  # in the order in which they came
        self._left = asyncio.Event()

    def enter(self, guest: Guest) -> None:
        """Let `guest` in; where everybody is busy, turn it away."""
        if len(self._guests) >= self._most:
            idle = next((each for each in self._guests if not each.busy), None)
            if idle is None:
                guest.abort()
                return
            self.leave(idle)
            idle.abort()
        self._guests[guest] = None

    def leave(self, guest: Guest) -> None:
        """Forget `guest`, who may never have been let in."""
        self._guests.pop(guest, None)
        self._left.set()

    async def emptied(self) -> None:
        """Return once nobody is connected."""
        while self._guests:
            self._left.clear()
            await self._left.wait()

    def close(self) -> None:
        """End the connections of those who have asked for nothing."""
        for guest in [each for each in self._guests if not each.busy]:
            guest.close()

    def clear(self) -> None:
        """End all connections at once."""
        for guest in list(self._guests):
            guest.abort()
