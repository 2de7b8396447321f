"""Stage 3: looking at a queue in Redis: snapshots and dead letters in pages, one key, the gauges."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from workqueue.backends.redis.aside import Aside
from workqueue.backends.redis.birth import Birth
from workqueue.backends.redis.leasing import began_us
from workqueue.backends.redis.records import (
    UNREADABLE,
    key_bytes,
    key_text,
    time_us,
    unpack_dead,
    unpack_entry,
    unpack_queued,
    unpack_running,
)
from workqueue.backends.redis.turns import Turns
from workqueue.errors import KeyNotFoundError
from workqueue.handles import Dead, HandleStore, LeaseTimesSeen, Observed, Queued, state_of
from workqueue.interface import KeyState, KeyStatus, Snapshot, UnreadableKey
from workqueue.optional import Counts, Found
from workqueue.rules import started

__all__ = ["Listing"]

_Now = tuple[int, int]  # wall and steady time of the server
_Bad = tuple[bytes, KeyStatus, bytes]
_PAGE = 200  # payloads included, a page stays below what a client and a server like to hold in memory


class Listing:
    """The views of one queue. `store` is what the listed handles' verbs go to; `birth` notices that it was emptied."""

    def __init__(self, store: HandleStore, turns: Turns, birth: Birth) -> None:
        self._store = store
        self._turns = turns
        self._birth = birth
        self.aside = Aside(turns)

    async def snapshot(self, limit: int) -> Snapshot:
        """See `WorkQueue.enumerate`. What fits into one page is the queue at one moment."""
        running: dict[bytes, Observed] = {}
        twins: dict[bytes, Queued] = {}
        queued: dict[bytes, Queued] = {}
        aside: list[UnreadableKey] = []
        cursor: bytes | str = "0"
        while True:
            wanted = min(limit - len(queued), _PAGE)
            again, wall_us, steady_us, next_cursor, rows, eligible, kept = await self._turns.call(
                "snapshot", cursor, len(queued), max(wanted, 0)
            )
            if again:
                continue
            bad: list[_Bad] = []
            for i in range(0, len(rows), 4):
                self._note_running(rows[i : i + 4], (wall_us, steady_us), running, twins, bad)
            for i in range(0, len(eligible), 3):
                self._note_queued(eligible[i : i + 3], queued, bad)
            aside += self.aside.listed(kept)
            aside += [key for each in bad if (key := await self.aside.put(*each)) is not None]
            cursor = "" if next_cursor == b"0" else next_cursor
            if not cursor and (len(queued) >= limit or len(eligible) < 3 * wanted):
                return Snapshot(
                    [*running.values()], [*queued.values()], [*twins.values()], self._dead_letters(wall_us), aside
                )

    def _note_running(
        self,
        row: Sequence[Any],
        now: _Now,
        running: dict[bytes, Observed],
        twins: dict[bytes, Queued],
        bad: list[_Bad],
    ) -> None:
        raw, packed, expiry, twin = row
        try:
            running[raw] = self.observed(raw, packed, expiry, now)
        except UNREADABLE:
            bad.append((raw, KeyStatus.IN_PROGRESS, packed))
        if twin is not None:
            self._note_queued((raw, b"0", twin), twins, bad)

    def _note_queued(self, row: Sequence[Any], queued: dict[bytes, Queued], bad: list[_Bad]) -> None:
        try:
            queued[row[0]] = self.queued(*row)
        except UNREADABLE:
            bad.append((row[0], KeyStatus.QUEUED, row[2]))

    def observed(self, raw: bytes, packed: bytes, expiry: bytes, now: _Now) -> Observed:
        """The handle of a key in progress, from what is stored of it and its lease expiry."""
        token, owner, entry = unpack_running(key_text(raw), packed)
        orphaned = time_us(expiry) <= now[1]
        return Observed(self._store, started(entry), owner, orphaned, (token, expiry), _seen(token, expiry, now))

    def dead(self, raw: bytes, letter: bytes) -> Dead:
        """The handle of a dead letter."""
        return Dead(self._store, unpack_dead(key_text(raw), letter), letter)

    def queued(self, raw: bytes, queued_us: bytes, record: bytes | None) -> Queued:
        """The handle of a queued key; one without a record says nothing but when it was queued."""
        return Queued(self._store, unpack_queued(key_text(raw), time_us(queued_us), record), record)

    async def _dead_letters(self, until_us: int) -> AsyncIterator[Dead]:
        """Dead letters but those from since `until_us`: a key that fails again after a re-drive is not met twice."""
        after: bytes | str = "-inf"
        while True:
            after, rows = await self._turns.call("letters", after, _PAGE, until_us)
            for i in range(0, len(rows), 2):
                try:
                    letter = self.dead(rows[i], rows[i + 1])
                except UNREADABLE:
                    await self.aside.put(rows[i], KeyStatus.DEAD_LETTER, rows[i + 1])
                    continue
                yield letter
            if not after:
                return

    async def find(self, key: str) -> Found:
        """See `SearchableQueue.find`."""
        raw = key_bytes(key)
        while True:
            record, queued_us, running, expiry, letter, wall_us, steady_us, aside = await self._turns.call("get", raw)
            if not await self._set_aside(raw, record, running, letter):
                break
        return Found(
            None if record is None and queued_us is None else self.queued(raw, queued_us or b"0", record),
            None if running is None else self.observed(raw, running, expiry or b"0", (wall_us, steady_us)),
            None if letter is None else self.dead(raw, letter),
            None if aside is None else self.aside.one(raw, aside),
        )

    async def _set_aside(self, raw: bytes, record: bytes | None, running: bytes | None, letter: bytes | None) -> bool:
        """Set aside what of one key cannot be read; whether there was anything."""
        readers: Sequence[tuple[bytes | None, KeyStatus, Callable[[str, bytes], object]]] = (
            (record, KeyStatus.QUEUED, unpack_entry),
            (running, KeyStatus.IN_PROGRESS, unpack_running),
            (letter, KeyStatus.DEAD_LETTER, unpack_dead),
        )
        bad = [(status, packed) for packed, status, read in readers if packed is not None and not _reads(read, packed)]
        return any([await self.aside.put(raw, status, packed) for status, packed in bad])

    async def state(self, key: str) -> KeyState:
        """See `WorkQueue.get`."""
        raw = key_bytes(key)
        while True:
            record, queued_us, running, expiry, letter, wall_us, steady_us, aside = await self._turns.call("get", raw)
            if not await self._set_aside(raw, record, running, letter):
                break
        is_queued = record is not None or queued_us is not None
        token, owner, entry = unpack_running(key, running) if running is not None else ("", "", None)
        state = state_of(
            unpack_queued(key, time_us(queued_us or b"0"), record) if is_queued else None,
            started(entry) if entry is not None else None,
            owner,
            unpack_dead(key, letter) if letter is not None else None,
            _seen(token, expiry or b"0", (wall_us, steady_us)),
        )
        if state is None and aside is not None:
            return KeyState(key, KeyStatus.UNKNOWN, error=self.aside.one(raw, aside).reason)
        if state is None:
            raise KeyNotFoundError(f"no key {key!r} in this queue")
        return state

    async def delayed(self, limit: int) -> Sequence[Queued]:
        """See `SearchableQueue.delayed`."""
        listed: dict[bytes, Queued] = {}
        while len(listed) < limit:
            wanted = min(limit - len(listed), _PAGE)
            rows = await self._turns.call("later", len(listed), wanted)
            bad: list[_Bad] = []
            for i in range(0, len(rows), 2):
                self._note_queued((rows[i], b"0", rows[i + 1] or b""), listed, bad)
            for each in bad:
                await self.aside.put(*each)
            if len(rows) < 2 * wanted:
                break
        return list(listed.values())

    async def counts(self) -> Counts:
        """See `CountingQueue.counts`."""
        (
            *(queued, not_before, twins, in_progress, dead, oldest_us, attempts, owners),
            unreadable,
            born,
        ) = await self._turns.call("counts")
        self._birth.look(born)
        return Counts(
            queued,
            not_before,
            twins,
            in_progress,
            dead,
            oldest_us / 1e6,
            max(map(_count, attempts), default=0),
            {owners[i].decode(errors="replace"): _count(owners[i + 1]) for i in range(0, len(owners), 2)},
            unreadable,
        )


def _reads(read: Callable[[str, bytes], object], packed: bytes) -> bool:
    try:
        read("", packed)
    except UNREADABLE:
        return False
    return True


def _count(text: bytes) -> int:
    """A kept count; one that somebody else made no number of counts nothing."""
    return int(text) if text.isdigit() and len(text) < 16 else 0


def _seen(token: str, expiry: bytes, now: _Now) -> LeaseTimesSeen:
    wall_us, steady_us = now
    return LeaseTimesSeen(began_us(token), time_us(expiry) - steady_us + wall_us)
