"""For `ls`: the rows that are shown of each place, from its pages; what is not shown is counted and not held."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workqueue.fallbacks import FullQueue
from workqueue.optional import Counts
from workqueue.paging import MAX_LIMIT, First, ListedKey, Place
from workqueue.programs import printing
from workqueue.searching import Filter, Matches, search

__all__ = ["ORDERS", "STATES", "Choice", "Order", "Row", "Shown", "State", "shown_in"]

Row = dict[str, object]
Order = Callable[[Any], Any]
"""What a key is sorted by; what is smaller comes first."""

ORDERS: dict[str, Order] = {
    "key": lambda key: key.key,
    "priority": lambda key: -key.priority,
    "attempts": lambda key: -key.attempts,
    "oldest": lambda key: key.queued_time,
}


@dataclass(frozen=True, slots=True)
class State:
    """How the keys of one place are shown: under which name in JSON, how many they are, and a row for each."""

    name: str
    count: Callable[[Counts], int]
    row: Callable[[Any], Row]


STATES = {
    Place.IN_PROGRESS: State("in_progress", lambda counts: counts.in_progress, printing.observed),
    Place.QUEUED: State("queued", lambda counts: counts.queued, printing.queued),
    Place.TWINS: State("twins", lambda counts: counts.twins, printing.queued),
    Place.DELAYED: State("delayed", lambda counts: counts.not_before, printing.queued),
    Place.DEAD_LETTERED: State("dead_letters", lambda counts: counts.dead_lettered, printing.dead_letter),
    Place.UNREADABLE: State("unreadable", lambda counts: counts.unreadable, printing.unreadable),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which keys are shown.

    Args:
        wanted: those that match.
        order: what comes first; None = in the order of the place.
        limit: at most this many.
        cursor: where to begin.
        look_at: at most this many keys are looked at, to know which ones match or come first.
    """

    wanted: Filter
    order: Order | None
    limit: int
    cursor: str
    look_at: int

    def is_narrowed(self) -> bool:
        """Whether keys must be looked at to know which ones are meant, or come first."""
        return self.wanted.is_given() or self.order is not None


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of one place.

    Args:
        rows: the keys.
        total: how many there are with those that are not shown.
        cursor: where those that follow begin; "" = none do, or the rows are sorted otherwise.
        is_cut: there were more keys to look at.
    """

    rows: Sequence[Row]
    total: int
    cursor: str = ""
    is_cut: bool = False


async def shown_in(queue: FullQueue, places: Iterable[Place], choice: Choice) -> dict[Place, Shown]:
    """What is shown of each of `places`."""
    if choice.order is not None:
        return {place: await _sorted(queue, place, choice, choice.order) for place in places}
    if choice.is_narrowed():
        return {place: await _matching(queue, place, choice) for place in places}
    shown = {place: await _next(queue, place, choice, choice.limit) for place in places}
    counts = await queue.counts()
    # What is shown is there, whatever the counts said a moment later.
    return {place: replace(each, total=max(STATES[place].count(counts), each.total)) for place, each in shown.items()}


async def _next(queue: FullQueue, place: Place, choice: Choice, budget: int) -> Shown:
    found = await search(queue, place, choice.wanted, limit=choice.limit, cursor=choice.cursor, budget=budget)
    rows = [STATES[place].row(key) for key in found.keys]
    return Shown(rows, len(rows), found.cursor)


async def _matching(queue: FullQueue, place: Place, choice: Choice) -> Shown:
    """The first keys that match, and how many more there are."""
    first = await search(queue, place, choice.wanted, limit=choice.limit, cursor=choice.cursor, budget=choice.look_at)
    rows = [STATES[place].row(key) for key in first.keys]
    total, cursor = len(rows), first.cursor
    async for more in _pages(queue, place, choice, first.cursor, choice.look_at - first.looked_at):
        total, cursor = total + len(more.keys), more.cursor
    return Shown(rows, total, first.cursor if cursor or total > len(rows) else "", is_cut=bool(cursor))


async def _sorted(queue: FullQueue, place: Place, choice: Choice, order: Order) -> Shown:
    """The first keys in `order`."""
    by = order if place is not Place.UNREADABLE or order is ORDERS["key"] else _alike
    first = First[ListedKey](choice.limit, by)
    total, cursor = 0, ""
    async for page in _pages(queue, place, choice, None, choice.look_at):
        first.add(page.keys)
        total, cursor = total + len(page.keys), page.cursor
    return Shown([STATES[place].row(key) for key in first.sorted()], total, is_cut=bool(cursor))


def _alike(_: object) -> int:
    """For what has a name and nothing else to be sorted by."""
    return 0


async def _pages(
    queue: FullQueue, place: Place, choice: Choice, cursor: str | None, look_at: int
) -> AsyncIterator[Matches]:
    """What matches from `cursor` on, page by page; None = from the beginning, "" = there is no more."""
    while cursor != "" and look_at > 0:
        found = await search(
            queue, place, choice.wanted, limit=MAX_LIMIT, cursor=cursor or "", budget=min(look_at, MAX_LIMIT)
        )
        cursor, look_at = found.cursor, look_at - found.looked_at
        yield found
