"""Records that nobody can read: set aside so that other keys go on, logged once, shown to operators.

Our scripts write none. One is written by hand, by a program that is not ours, or was cut off on its way. The scripts
set aside what they meet; a listing finds the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial

from workqueue.backends.redis.records import key_text, status_number, status_of
from workqueue.backends.redis.turns import Turns
from workqueue.handles import Unreadable
from workqueue.interface import KeyStatus

__all__ = ["Aside", "log_set_aside"]

log = logging.getLogger(__name__)

_SHOWN_BYTES = 32


def log_set_aside(keys: Iterable[str]) -> None:
    """Log keys that were set aside just now; nobody else does, since it happens once."""
    for key in keys:
        log.error(
            "key %r is set aside: its record cannot be read; `workqueue ls` shows it, `workqueue drop` removes it",
            key,
            extra={"key": key},
        )


class Aside:
    """The records of one queue that cannot be read."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def listed(self, rows: Sequence[bytes]) -> list[Unreadable]:
        """What was set aside, from rows of key, and status with record."""
        return [self.one(rows[i], rows[i + 1]) for i in range(0, len(rows), 2)]

    def one(self, raw: bytes, kept: bytes) -> Unreadable:
        """One that was set aside: `kept` is its status and its record."""
        status, record = status_of(kept[:1]), kept[1:]
        shown = record[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        reason = f"its record of {len(record)} bytes cannot be read: {shown!r}"
        return Unreadable(key_text(raw), status, reason, partial(self._drop, raw, kept))

    async def put(self, raw: bytes, status: KeyStatus, record: bytes) -> Unreadable | None:
        """Set a record aside that its reader could not read; None if it changed meanwhile."""
        number = status_number(status)
        if not await self._turns.call("aside", raw, number, record, "set"):
            return None
        log_set_aside([key_text(raw)])
        return self.one(raw, number + record)

    async def _drop(self, raw: bytes, kept: bytes) -> bool:
        return bool(await self._turns.call("aside", raw, "", kept, "drop"))
