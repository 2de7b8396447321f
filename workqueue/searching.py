"""What an operator searches for: the keys of one place that match a filter, over pages alone, whatever the backend.

No store has an index for every filter. So a search looks at a bounded number of keys, then says where it stopped and
how many it looked at; whoever asked decides whether to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from workqueue.clock import from_us
from workqueue.equipment import Equipment
from workqueue.errors import InvalidOptionsError
from workqueue.fallbacks import FullQueue
from workqueue.options import check_duration, check_type
from workqueue.paging import MAX_LIMIT, ListedKey, Page, PageRequest, Place

__all__ = ["Filter", "Matches", "search", "since"]

_GROWTH = 4  # where few keys match, the next page is that much longer; where most do, none is read in vain


@dataclass(frozen=True, slots=True)
class Filter:
    """Which keys are meant; all that is given must hold.

    A key that cannot be read has a name and nothing else.

    Args:
        prefix: its name begins so.
        priority: it has this priority.
        min_attempts: it was started at least this often.
        older_than: it has been where it is for longer: a dead letter since it was given up, a key in progress since its
            attempt began, any other since it was queued.
        error: its error, or its last one, contains this text.

    Raises:
        InvalidOptionsError: one of them is of another type.
    """

    prefix: str = ""
    priority: int | None = None
    min_attempts: int = 0
    older_than: timedelta | None = None
    error: str = ""

    def __post_init__(self) -> None:
        check_type("prefix", self.prefix, str, "text")
        check_type("error", self.error, str, "text")
        check_type("min_attempts", self.min_attempts, int, "a whole number")
        if self.priority is not None:
            check_type("priority", self.priority, int, "a whole number")
        if self.older_than is not None:
            check_duration("older_than", self.older_than)

    def is_given(self) -> bool:
        """Whether it narrows anything down."""
        return self != Filter()

    def matches(self, key: ListedKey, now: datetime) -> bool:
        """Whether `key` is one of those meant, at the wall time `now`."""
        if not key.key.startswith(self.prefix):
            return False
        return self._suits(key, now) if hasattr(key, "attempts") else self == Filter(prefix=self.prefix)

    def _suits(self, key: Any, now: datetime) -> bool:
        is_tried = key.attempts >= self.min_attempts
        is_in_lane = self.priority is None or key.priority == self.priority
        return is_tried and is_in_lane and self._is_old(key, now) and self.error in _error_of(key)

    def _is_old(self, key: Any, now: datetime) -> bool:
        if self.older_than is None:
            return True
        began = since(key)
        return began is not None and now - began > self.older_than


@dataclass(frozen=True, slots=True)
class Matches:
    """What a search found.

    Args:
        keys: the handles of what matches, in the order of the place.
        cursor: where it stopped, to go on from; "" = all that follows was looked at.
        looked_at: how many keys were looked at.
    """

    keys: Sequence[ListedKey]
    cursor: str
    looked_at: int


async def search(
    queue: FullQueue, place: Place, wanted: Filter, *, limit: int = 100, cursor: str = "", budget: int = 10_000
) -> Matches:
    """The next keys of `place` that match, in its order.

    It stops at the first of: `limit` matches, `budget` keys looked at, the last key of the place.

    Args:
        queue: any queue.
        place: where to look.
        wanted: which keys are meant; an empty one means all.
        limit: at most this many matches (>= 1).
        cursor: that of the search before, with the same filter; "" = from the beginning.
        budget: look at no more keys than this (>= 1).

    Raises:
        InvalidOptionsError: the cursor is of no page of this place, or a number is out of range.
    """
    for name, number in (("limit", limit), ("budget", budget)):
        check_type(name, number, int, "a whole number")
        if number < 1:
            raise InvalidOptionsError(f"{name} is 1 or more, not {number}")
    return await _Search(queue, place, wanted).run(limit, cursor, budget)


class _Search:
    """One search; the age of keys is judged as of its beginning."""

    def __init__(self, queue: FullQueue, place: Place, wanted: Filter) -> None:
        self._queue = queue
        self._place = place
        self._wanted = wanted
        self._now = from_us(Equipment.of(queue).clock.wall_us())

    async def run(self, limit: int, cursor: str, budget: int) -> Matches:
        found: list[ListedKey] = []
        looked_at, size = 0, limit
        while True:
            size = min(size, budget - looked_at, MAX_LIMIT)
            page, matches = await self._page(limit - len(found), cursor, size)
            size *= _GROWTH
            found += matches
            looked_at += len(page.keys)
            cursor = "" if self._is_past(page) else page.cursor
            if not cursor or len(found) >= limit or looked_at >= budget:
                return Matches(found, cursor, looked_at)

    async def _page(self, limit: int, cursor: str, size: int) -> tuple[Page, list[ListedKey]]:
        """The next page, of `size` keys at most, and what of it matches; it ends with the last match that is wanted.

        Its cursor is behind its last key. So where a page has more matches than wanted, a shorter one is asked for,
        and looked through anew, since keys may have come and gone meanwhile.
        """
        while True:
            page = await self._queue.page(PageRequest(self._place, size, cursor))
            at = [index for index, key in enumerate(page.keys) if self._wanted.matches(key, self._now)]
            if len(at) < limit or at[limit - 1] == len(page.keys) - 1:
                return page, [page.keys[index] for index in at]
            size = at[limit - 1] + 1

    def _is_past(self, page: Page) -> bool:
        """Whether eligible keys, which come by priority, are past the one that is wanted."""
        if self._place is not Place.QUEUED or self._wanted.priority is None or not page.keys:
            return False
        return getattr(page.keys[-1], "priority", self._wanted.priority) < self._wanted.priority


def since(key: ListedKey) -> datetime | None:
    """Since when a key is where it is, as far as that is known; None of one that cannot be read."""
    for name in ("failed_time", "attempt_began", "queued_time"):
        moment: datetime | None = getattr(key, name, None)
        if moment is not None:
            return moment
    return None


def _error_of(key: Any) -> str:
    error: str = key.error if hasattr(key, "error") else key.last_error
    return error
