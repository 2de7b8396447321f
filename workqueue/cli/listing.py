"""The command `ls`: keys by where they are, narrowed down and sorted, and how many there are beside those shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from workqueue.backends import open_queue
from workqueue.cli.matching import ChosenFlags
from workqueue.cli.places import ORDERS, STATES, Choice, Shown, shown_in
from workqueue.errors import InvalidSettingError
from workqueue.paging import Place
from workqueue.programs import printing
from workqueue.programs.converters import choice, listed, whole
from workqueue.programs.flags import Flag, with_flags
from workqueue.programs.settings import OutputFlags, QueueFlags

__all__ = ["LimitFlags", "ListFlags", "PageFlags", "ls", "title"]

_MOST = 1_000_000
_SORTS = ("start", *ORDERS)


@dataclass(frozen=True, slots=True)
class LimitFlags:
    """How much to list."""

    limit: Annotated[int, Flag("at most N keys of each kind", takes=whole(1, _MOST))] = 20


@dataclass(frozen=True, slots=True)
class PageFlags:
    """Where to begin, and how far to look."""

    cursor: Annotated[str, Flag("go on where the last listing of this state says that more follow")] = ""
    look_at: Annotated[int, Flag("look at N keys of each kind, to choose or to sort them", takes=whole(1))] = 1_000_000


@dataclass(frozen=True, slots=True)
class ListFlags:
    """Which keys to list, and in which order. All that is given must hold; then keys are looked at one by one."""

    chosen: ChosenFlags
    size: LimitFlags
    page: PageFlags
    state: Annotated[tuple[str, ...], Flag(f"only these: {', '.join(STATES)}", takes=listed("STATE"))] = ()
    sort: Annotated[str, Flag("what comes first: in the order of starts, or as said", takes=choice(*_SORTS))] = "start"

    def __post_init__(self) -> None:
        for state in self.state:
            if state not in list(STATES):
                raise InvalidSettingError(f"--state: it takes {', '.join(STATES)}, not {state!r}")
        if self.page.cursor and (len(self.state) != 1 or self.sort in ORDERS):
            raise InvalidSettingError("--cursor: it goes with the one --state that it was given for, and no --sort")

    def choice(self) -> Choice:
        """Which keys are meant."""
        return Choice(self.chosen.filter, ORDERS.get(self.sort), self.size.limit, self.page.cursor, self.page.look_at)


@with_flags
def ls(wanted: ListFlags, where: QueueFlags, output: OutputFlags) -> None:
    """List keys by where they are.

    In progress, next to start, twins (queued again while in progress), delayed, dead-lettered, and those whose record
    cannot be read. Where more follow, --cursor shows them. To choose or to sort keys is to look at each.
    """
    listing = asyncio.run(_list(where.url(look=True), wanted))
    if output.json:
        printing.document(_document(listing))
        return
    for place, shown in listing.items():
        if shown.rows:
            name = STATES[place].name.replace("_", " ")
            printing.listing(shown.rows, title(name, len(shown.rows), shown.total))
    if not any(shown.rows for shown in listing.values()):
        printing.note("no such key" if wanted.choice().is_narrowed() or wanted.state else "the queue is empty")
    for hint in _hints(listing, wanted):
        printing.note(hint)


def title(name: str, shown: int, total: int) -> str:
    """The title of a table that shows some of `total` rows."""
    return f"{name} ({shown:,} of {total:,})" if shown < total else name


def _document(listing: Mapping[Place, Shown]) -> dict[str, object]:
    named = {STATES[place].name: shown for place, shown in listing.items()}
    return {
        **{name: shown.rows for name, shown in named.items()},
        "totals": {name: shown.total for name, shown in named.items()},
        "cursors": {name: shown.cursor for name, shown in named.items() if shown.cursor},
    }


def _hints(listing: Mapping[Place, Shown], wanted: ListFlags) -> Iterator[str]:
    """What the tables do not show."""
    for place, shown in listing.items():
        name = STATES[place].name.replace("_", " ")
        if shown.is_cut:
            yield f"{name}: only the first {wanted.page.look_at:,} keys were looked at; --look-at says how many"
        if shown.cursor and wanted.state:
            yield f"{name}: more follow: --state {place} --cursor {shown.cursor}"


async def _list(url: str, wanted: ListFlags) -> dict[Place, Shown]:
    """What is shown of each place."""
    places = [place for place in STATES if not wanted.state or place in wanted.state]
    async with open_queue(url) as queue:
        return await shown_in(queue, places, wanted.choice())
