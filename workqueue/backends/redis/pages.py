"""Stage 3: the pages of a queue in Redis, each from where the one before ended, in a bounded number of commands.

What is eligible, delayed or dead-lettered stands in sorted sets, where a position is found in O(log² n). What is in
progress has no order that renewals leave alone, but is no more than the concurrency: its names are fetched and sorted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from workqueue.backends.redis.listing import Listing
from workqueue.backends.redis.records import UNREADABLE, key_bytes, key_text
from workqueue.backends.redis.turns import Turns
from workqueue.errors import InvalidOptionsError
from workqueue.interface import KeyStatus
from workqueue.paging import ListedKey, Page, PageRequest, Place, cursor_at, page_from

__all__ = ["Pages"]

_AT_ONCE = 200  # payloads included, a reply stays below what a client and a server like to hold in memory
_PRIORITY = re.compile(r"-?[0-9]{1,16}")
_SCORE = re.compile(r"-?(inf|[0-9]+(\.[0-9]+)?(e[+-]?[0-9]{1,3})?)")  # as Redis writes it, whoever stored it

_Row = Sequence[Any]


class Pages:
    """The pages of one queue; `listing` makes the handles."""

    def __init__(self, turns: Turns, listing: Listing) -> None:
        self._turns = turns
        self._listing = listing

    async def page(self, request: PageRequest) -> Page:
        """See `PagedQueue.page`."""
        listing = self._listing
        match request.place:
            case Place.QUEUED:
                rows = await self._eligible(request)
                return await self._page(request, rows, KeyStatus.QUEUED, lambda row: listing.queued(*row[:3]))
            case Place.DELAYED:
                rows = await self._scored(request, "delayed")
                return await self._page(request, rows, KeyStatus.QUEUED, lambda row: listing.queued(*row))
            case Place.DEAD_LETTERED:
                rows = await self._scored(request, "failed")
                return await self._page(request, rows, KeyStatus.DEAD_LETTER, lambda row: listing.dead(row[0], row[2]))
            case Place.IN_PROGRESS | Place.TWINS:
                return await self._running(request)
            case Place.UNREADABLE:
                return await self._unreadable(request)

    # by score

    async def _eligible(self, request: PageRequest) -> list[_Row]:
        position = _position(request, _PRIORITY, _SCORE)
        rows: list[_Row] = []
        while (wanted := min(request.limit + 1 - len(rows), _AT_ONCE)) > 0:
            again, found = await self._turns.call("page_queued", wanted, *position)
            if again:
                continue
            rows += _rows(found, 4)
            if len(found) < 4 * wanted:
                break
            position = (rows[-1][3], rows[-1][1], rows[-1][0])
        return rows

    async def _scored(self, request: PageRequest, which: str) -> list[_Row]:
        position = _position(request, _SCORE)
        rows: list[_Row] = []
        while (wanted := min(request.limit + 1 - len(rows), _AT_ONCE)) > 0:
            found = await self._turns.call("page_scored", wanted, which, *position)
            rows += _rows(found, 3)
            if len(found) < 3 * wanted:
                break
            position = (rows[-1][1], rows[-1][0])
        return rows

    async def _page(
        self, request: PageRequest, rows: Sequence[_Row], status: KeyStatus, handle: Callable[[_Row], ListedKey]
    ) -> Page:
        """The page of `rows`, of which there is one more than it takes if another one follows."""
        keys: list[ListedKey] = []
        for row in rows[: request.limit]:
            try:
                keys.append(handle(row))
            except UNREADABLE:
                await self._listing.aside.put(row[0], status, row[2] or b"")
        if len(rows) <= request.limit:
            return Page(keys)
        key, score, _, *priority = rows[request.limit - 1]
        numbers = [number.decode("ascii", "replace") for number in (*priority, score)]
        return Page(keys, cursor_at(request.place, *numbers, key_text(key)))

    # by name

    async def _running(self, request: PageRequest) -> Page:
        """Keys in progress, or the twins of those that have one."""
        names = await self._names(request, "running")
        keys: list[tuple[bytes, ListedKey]] = []
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            wall_us, steady_us, found = await self._turns.call("page_named", "running", *some)
            for name, row in zip(some, _rows(found, 3), strict=True):
                handle = await self._in_progress(request.place, name, row, (wall_us, steady_us))
                if handle is not None:
                    keys.append((name, handle))
            if len(keys) > request.limit:
                break
        return _named(request, keys)

    async def _in_progress(self, place: Place, name: bytes, row: _Row, now: tuple[int, int]) -> ListedKey | None:
        """The handle of a key in progress, or of its twin; None if it is not there or cannot be read."""
        running, expiry, twin = row
        packed, status = (running, KeyStatus.IN_PROGRESS) if place is Place.IN_PROGRESS else (twin, KeyStatus.QUEUED)
        if running is None or packed is None:
            return None
        try:
            if place is Place.IN_PROGRESS:
                return self._listing.observed(name, running, expiry, now)
            return self._listing.queued(name, b"0", twin)
        except UNREADABLE:
            await self._listing.aside.put(name, status, packed)
            return None

    async def _unreadable(self, request: PageRequest) -> Page:
        names = (await self._names(request, "unreadable"))[: request.limit + 1]
        keys: list[tuple[bytes, ListedKey]] = []
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            *_, found = await self._turns.call("page_named", "unreadable", *some)
            kept = zip(some, (row[0] for row in _rows(found, 3)), strict=True)
            keys += [(name, self._listing.aside.one(name, record)) for name, record in kept if record is not None]
        return _named(request, keys)

    async def _names(self, request: PageRequest, which: str) -> list[bytes]:
        """The names behind the position, in order."""
        position = request.position(str)
        *_, names = await self._turns.call("page_named", which)
        after = key_bytes(position[0]) if position is not None else b""
        return sorted(name for name in names if name > after or position is None)


def _named(request: PageRequest, keys: Sequence[tuple[bytes, ListedKey]]) -> Page:
    return page_from(request, keys, [key for _, key in keys], lambda named: (key_text(named[0]),))


def _rows(found: Sequence[Any], columns: int) -> list[_Row]:
    return [found[i : i + columns] for i in range(0, len(found), columns)]


def _position(request: PageRequest, *numbers: re.Pattern[str]) -> tuple[bytes | str, ...]:
    """Numbers as text, and a key, for a script; empty ones stand for the beginning."""
    position = request.position(*(str for _ in numbers), str)
    if position is None:
        return ("",) * (len(numbers) + 1)
    *texts, key = position
    if not all(number.fullmatch(text) for number, text in zip(numbers, texts, strict=True)):
        raise InvalidOptionsError(f"this is no cursor of a page of {request.place} keys; begin without one")
    return (*texts, key_bytes(key))
