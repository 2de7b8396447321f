"""Stage 3: looking at a queue in Redis: snapshots and dead letters in pages, one key, the gauges."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from workqueue.backends.redis.records import (
    key_bytes,
    key_text,
    unpack_dead,
    unpack_queued,
    unpack_running,
)
from workqueue.backends.redis.turns import Turns
from workqueue.errors import KeyNotFoundError
from workqueue.handles import Dead, HandleStore, Observed, Queued, state_of
from workqueue.interface import Counts, Found, KeyState, Snapshot
from workqueue.rules import started

__all__ = ["Listing"]

_PAGE = 200  # payloads included, a page stays below what a client and a server like to hold in memory


class Listing:
    """The views of one queue. `store` is what the listed handles' verbs go to."""

    def __init__(self, store: HandleStore, turns: Turns) -> None:
        self._store = store
        self._turns = turns

    async def snapshot(self, limit: int) -> Snapshot:
        """See `WorkQueue.enumerate`. What fits into one page is the queue at one moment."""
        running: dict[bytes, Observed] = {}
        twins: dict[bytes, Queued] = {}
        queued: dict[bytes, Queued] = {}
        cursor: bytes | str = "0"
        while True:
            wanted = min(limit - len(queued), _PAGE)
            again, steady_us, next_cursor, rows, eligible = await self._turns.call(
                "snapshot", cursor, len(queued), max(wanted, 0)
            )
            if again:
                continue
            for i in range(0, len(rows), 4):
                self._note_running(rows[i : i + 4], steady_us, running, twins)
            for i in range(0, len(eligible), 3):
                queued[eligible[i]] = self._queued(*eligible[i : i + 3])
            cursor = "" if next_cursor == b"0" else next_cursor
            if not cursor and (len(queued) >= limit or len(eligible) < 3 * wanted):
                return Snapshot([*running.values()], [*queued.values()], [*twins.values()], self._dead_letters())

    def _note_running(
        self, row: Sequence[Any], steady_us: int, running: dict[bytes, Observed], twins: dict[bytes, Queued]
    ) -> None:
        raw, packed, expiry, twin = row
        running[raw] = self._observed(raw, packed, expiry, steady_us)
        if twin is not None:
            twins[raw] = self._queued(raw, b"0", twin)

    def _observed(self, raw: bytes, packed: bytes, expiry: bytes, steady_us: int) -> Observed:
        token, owner, entry = unpack_running(key_text(raw), packed)
        return Observed(self._store, started(entry), owner, int(float(expiry)) <= steady_us, (token, expiry))

    def _dead(self, raw: bytes, letter: bytes) -> Dead:
        return Dead(self._store, unpack_dead(key_text(raw), letter), letter)

    def _queued(self, raw: bytes, queued_us: bytes, record: bytes | None) -> Queued:
        return Queued(self._store, unpack_queued(key_text(raw), int(float(queued_us)), record), record)

    async def _dead_letters(self) -> AsyncIterator[Dead]:
        after: bytes | str = "-inf"
        while True:
            after, rows = await self._turns.call("letters", after, _PAGE)
            for i in range(0, len(rows), 2):
                yield self._dead(rows[i], rows[i + 1])
            if not after:
                return

    async def find(self, key: str) -> Found:
        """See `SearchableQueue.find`."""
        raw = key_bytes(key)
        record, queued_us, running, expiry, letter, steady_us = await self._turns.call("get", raw)
        return Found(
            None if record is None and queued_us is None else self._queued(raw, queued_us or b"0", record),
            None if running is None else self._observed(raw, running, expiry, steady_us),
            None if letter is None else self._dead(raw, letter),
        )

    async def state(self, key: str) -> KeyState:
        """See `WorkQueue.get`."""
        record, queued_us, running, _, letter, _ = await self._turns.call("get", key_bytes(key))
        is_queued = record is not None or queued_us is not None
        _, owner, entry = unpack_running(key, running) if running is not None else ("", "", None)
        state = state_of(
            unpack_queued(key, int(float(queued_us or 0)), record) if is_queued else None,
            started(entry) if entry is not None else None,
            owner,
            unpack_dead(key, letter) if letter is not None else None,
        )
        if state is None:
            raise KeyNotFoundError(f"no key {key!r} in this queue")
        return state

    async def delayed(self, limit: int) -> Sequence[Queued]:
        """See `SearchableQueue.delayed`."""
        listed: dict[bytes, Queued] = {}
        while len(listed) < limit:
            wanted = min(limit - len(listed), _PAGE)
            rows = await self._turns.call("later", len(listed), wanted)
            for i in range(0, len(rows), 2):
                listed[rows[i]] = self._queued(rows[i], b"0", rows[i + 1])
            if len(rows) < 2 * wanted:
                break
        return list(listed.values())

    async def counts(self) -> Counts:
        """See `CountingQueue.counts`."""
        queued, not_before, twins, in_progress, dead, oldest_us, attempts, owners = await self._turns.call("counts")
        return Counts(
            queued,
            not_before,
            twins,
            in_progress,
            dead,
            oldest_us / 1e6,
            max(map(int, attempts), default=0),
            {owners[i].decode(): int(owners[i + 1]) for i in range(0, len(owners), 2)},
        )
