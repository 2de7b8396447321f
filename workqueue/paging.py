"""What an operator pages through: the keys of one place, however many, a page at a time.

A cursor is a position in the order of its place, and no number of keys to skip. So keys that come and go between two
pages make no other key be skipped or listed twice. What a position is made of is the backend's own; here is only how
it travels. `optional.PagedQueue` is the verb.
"""

from __future__ import annotations

import heapq
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from workqueue.errors import InvalidOptionsError
from workqueue.interface import DeadLetteredKey, ObservedInProgressKey, QueuedKey, UnreadableKey
from workqueue.options import check_type

__all__ = [
    "MAX_LIMIT",
    "First",
    "ListedKey",
    "Page",
    "PageRequest",
    "Place",
    "Position",
    "cursor_at",
    "first_behind",
    "page_from",
]

MAX_LIMIT = 1000
"""The most keys of one page."""

ListedKey = QueuedKey | ObservedInProgressKey | DeadLetteredKey | UnreadableKey
"""A handle, of the kind that its place has."""

Position = tuple[Any, ...]
"""Where a key stands in the order of its place: what is smaller comes first."""

_T = TypeVar("_T")
_HELD = 4  # times as many keys as are wanted are held at once, before those beyond them are forgotten
_MOST_CURSOR = 16_384  # the longest key, each byte of it escaped, and what goes with it
_MOST_WHOLE = 2**63  # what a store can compare with


class Place(StrEnum):
    """Where keys are, and in which order they are listed there."""

    IN_PROGRESS = "in-progress"
    """Orphans included, by key."""
    QUEUED = "queued"
    """Eligible, in the order in which they would start."""
    TWINS = "twins"
    """The queued entries of keys in progress, by key."""
    DELAYED = "delayed"
    """Their not-before is to come, soonest first."""
    DEAD_LETTERED = "dead-lettered"
    """Given up, the last one first."""
    UNREADABLE = "unreadable"
    """Set aside, by key."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page.

    Args:
        place: whose keys.
        limit: at most this many, 1 to 1,000.
        cursor: that of the page before; "" = the first page.

    Raises:
        InvalidOptionsError: one of them is none.
    """

    place: Place
    limit: int = 100
    cursor: str = ""

    def __post_init__(self) -> None:
        check_type("place", self.place, Place, "a Place")
        check_type("limit", self.limit, int, "a whole number of keys")
        check_type("cursor", self.cursor, str, "the cursor of a page")
        if not 1 <= self.limit <= MAX_LIMIT:
            raise InvalidOptionsError(f"limit is 1 to {MAX_LIMIT:,} keys, not {self.limit}")

    def position(self, *kinds: type | tuple[type, ...]) -> Position | None:
        """The position in the cursor, for backends; None = before the first key.

        Args:
            kinds: the types of what it is made of, int, float or str.

        Raises:
            InvalidOptionsError: the cursor was not given with a page of this place, by a backend of this kind.
        """
        if not self.cursor:
            return None
        place, *position = _decoded(self.cursor) or [None]
        fits = len(position) == len(kinds) and all(map(_is_a, position, kinds))
        if place != self.place or not fits:
            raise InvalidOptionsError(f"this is no cursor of a page of {self.place} keys; begin without one")
        return tuple(position)


@dataclass(frozen=True, slots=True)
class Page:
    """Some keys of one place, in its order.

    A page may have fewer keys than asked for although more follow: what cannot be read is set aside meanwhile.

    Args:
        keys: their handles.
        cursor: what to ask for the next page with; "" = none follows.
    """

    keys: Sequence[ListedKey]
    cursor: str = ""


def cursor_at(place: Place, *position: float | str) -> str:
    """A cursor behind the key at `position`, for backends; URL-safe text."""
    packed = json.dumps([place, *position], separators=(",", ":"))
    return urlsafe_b64encode(packed.encode()).decode().rstrip("=")


def page_from(
    request: PageRequest, found: Sequence[_T], keys: Sequence[ListedKey], position: Callable[[_T], Position]
) -> Page:
    """The page of what was found for `request`, for backends.

    Args:
        request: what was asked for.
        found: what stands behind the cursor, in order; one more than was asked for if another page follows.
        keys: the handles of what was found, at least of what is on the page.
        position: where something that was found stands.
    """
    follows = len(found) > request.limit
    cursor = cursor_at(request.place, *position(found[request.limit - 1])) if follows else ""
    return Page(keys[: request.limit], cursor)


def first_behind(
    request: PageRequest, items: Iterable[_T], position: Callable[[_T], Position], *kinds: type
) -> list[_T]:
    """What `page_from` takes, of a place that is looked through; for backends.

    Raises:
        InvalidOptionsError: the cursor is of no page of this place.
    """
    after = request.position(*kinds)
    behind = items if after is None else (item for item in items if position(item) > after)
    return heapq.nsmallest(request.limit + 1, behind, key=position)


class First(Generic[_T]):
    """The first of any number of items, of which a few times as many are held at once.

    Args:
        wanted: how many.
        order: what is smaller comes first.
    """

    def __init__(self, wanted: int, order: Callable[[_T], Any]) -> None:
        self._wanted = wanted
        self._order = order
        self._held: list[_T] = []

    def add(self, items: Iterable[_T]) -> None:
        """Take notice of further items."""
        self._held += items
        if len(self._held) > _HELD * self._wanted:
            self._held = self.sorted()

    def sorted(self) -> list[_T]:
        """The first of all that were added, in order."""
        return heapq.nsmallest(self._wanted, self._held, key=self._order)


def _decoded(cursor: str) -> list[Any] | None:
    """What a cursor is made of; None if nobody made it."""
    if len(cursor) > _MOST_CURSOR or not cursor.isascii():
        return None
    try:
        packed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        found = json.loads(packed)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and found else None


def _is_a(value: Any, kind: type | tuple[type, ...]) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    if isinstance(value, str):
        return _is_text(value)
    return not isinstance(value, int) or -_MOST_WHOLE <= value < _MOST_WHOLE


def _is_text(value: str) -> bool:
    """Whether a store can hold it: a lone surrogate stands for a byte that is no UTF-8, or for nothing."""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
