"""The command `ls`: keys by where they are, narrowed down and sorted, and how many there are beside those shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from workqueue.backends import open_queue
from workqueue.errors import InvalidSettingError
from workqueue.fallbacks import FullQueue
from workqueue.interface import DeadLetteredKey, QueuedKey, Snapshot
from workqueue.optional import Counts
from workqueue.programs import printing
from workqueue.programs.converters import choice, listed, whole
from workqueue.programs.flags import Flag, with_flags
from workqueue.programs.settings import OutputFlags, QueueFlags

__all__ = ["LimitFlags", "ListFlags", "cut", "ls", "title"]

_Row = dict[str, object]

# state as given -> its name in JSON, and how many keys are in it
_STATES: dict[str, tuple[str, Callable[[Counts], int]]] = {
    "in-progress": ("in_progress", lambda counts: counts.in_progress),
    "queued": ("queued", lambda counts: counts.queued),
    "twins": ("twins", lambda counts: counts.twins),
    "delayed": ("delayed", lambda counts: counts.not_before),
    "dead-lettered": ("dead_letters", lambda counts: counts.dead_lettered),
    "unreadable": ("unreadable", lambda counts: counts.unreadable),
}
_ALL = 1_000_000
_ORDERS: dict[str, Callable[[Any], Any]] = {
    "key": lambda row: row["key"],
    "priority": lambda row: -row["priority"],
    "attempts": lambda row: -row["attempts"],
    "oldest": lambda row: row["queued_time"],
}

_SORTS = ("start", *_ORDERS)


@dataclass(frozen=True, slots=True)
class LimitFlags:
    """How much to list."""

    limit: Annotated[int, Flag("at most N keys of each kind", takes=whole(1, _ALL))] = 20


@dataclass(frozen=True, slots=True)
class ListFlags:
    """Which keys to list, and in which order. All that is given must hold; then every key is looked at."""

    size: LimitFlags
    state: Annotated[tuple[str, ...], Flag(f"only these: {', '.join(_STATES)}", takes=listed("STATE"))] = ()
    prefix: Annotated[str, Flag("keys that start so")] = ""
    min_attempts: Annotated[int, Flag("keys that were started N times or more", takes=whole(0))] = 0
    sort: Annotated[str, Flag("what comes first: in the order of starts, or as said", takes=choice(*_SORTS))] = "start"

    def __post_init__(self) -> None:
        for state in self.state:
            if state not in _STATES:
                raise InvalidSettingError(f"--state: it takes {', '.join(_STATES)}, not {state!r}")

    def is_narrowed(self) -> bool:
        """Whether keys must be looked at to know which ones are meant, or come first."""
        return bool(self.prefix or self.min_attempts) or self.sort in _ORDERS

    def wants(self, state: str) -> bool:
        """Whether keys in `state` are meant."""
        return not self.state or state in self.state

    def matching(self, rows: Iterable[_Row]) -> list[_Row]:
        """Those of `rows` that are meant, in order. What cannot be read has neither attempts nor age."""
        found = [row for row in rows if str(row["key"]).startswith(self.prefix) and self._is_tried(row)]
        if self.sort in _ORDERS and found and (self.sort == "key" or "attempts" in found[0]):
            found.sort(key=_ORDERS[self.sort])
        return found

    def _is_tried(self, row: _Row) -> bool:
        attempts = row.get("attempts", 0)
        return isinstance(attempts, int) and attempts >= self.min_attempts


@with_flags
def ls(wanted: ListFlags, where: QueueFlags, output: OutputFlags) -> None:
    """List keys by where they are.

    In progress, next to start, twins (queued again while in progress), delayed, dead-lettered, and those whose record
    cannot be read. --prefix, --min-attempts and --sort look at every key.
    """
    listing, totals = asyncio.run(_list(where.url(look=True), wanted))
    if output.json:
        printing.document({**listing, "totals": totals})
        return
    for name, rows in listing.items():
        if rows:
            printing.listing(rows, title(name.replace("_", " "), len(rows), totals[name]))
    if not any(listing.values()):
        printing.note("no such key" if wanted.is_narrowed() or wanted.state else "the queue is empty")


def title(name: str, shown: int, total: int) -> str:
    """The title of a table that shows some of `total` rows."""
    return f"{name} ({shown:,} of {total:,})" if shown < total else name


async def _list(url: str, wanted: ListFlags) -> tuple[dict[str, list[_Row]], dict[str, int]]:
    """The rows of each state, and how many there are."""
    limit = wanted.size.limit
    async with open_queue(url) as queue:
        listing = await _rows(queue, wanted, _ALL if wanted.is_narrowed() else limit)
        counts = Counts() if wanted.is_narrowed() else await queue.counts()
    # What is shown is there, whatever the counts said a moment later.
    totals = {_STATES[state][0]: max(_STATES[state][1](counts), len(rows)) for state, rows in listing.items()}
    return {_STATES[state][0]: rows[:limit] for state, rows in listing.items()}, totals


async def _rows(queue: FullQueue, wanted: ListFlags, limit: int) -> dict[str, list[_Row]]:
    snapshot = await queue.enumerate(limit)
    rows = {
        state: [row async for row in _of(state, queue, snapshot, limit)] for state in _STATES if wanted.wants(state)
    }
    return {state: wanted.matching(found) for state, found in rows.items()}


async def _of(state: str, queue: FullQueue, snapshot: Snapshot, limit: int) -> AsyncIterator[_Row]:
    """The rows of one state, at most `limit`."""
    match state:
        case "dead-lettered":
            async for letter in cut(snapshot.dead_letters, limit):
                yield printing.dead_letter(letter)
        case "in-progress":
            for running in snapshot.in_progress:
                yield printing.observed(running)
        case "unreadable":
            for unreadable in snapshot.unreadable:
                yield printing.unreadable(unreadable)
        case _:
            for key in await queue.delayed(limit) if state == "delayed" else _waiting(state, snapshot):
                yield printing.queued(key)


def _waiting(state: str, snapshot: Snapshot) -> Sequence[QueuedKey]:
    return snapshot.twins if state == "twins" else snapshot.queued


async def cut(letters: AsyncIterator[DeadLetteredKey], limit: int) -> AsyncIterator[DeadLetteredKey]:
    """The first `limit` of `letters`; no more are read than that."""
    left = limit
    async for letter in letters:
        yield letter
        left -= 1
        if not left:
            return
