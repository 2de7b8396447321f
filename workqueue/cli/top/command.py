"""The command `top`: looks at a queue, and at its dispatchers, once in a period, and shows what it found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, cast

from workqueue.backends import open_queue
from workqueue.cli.dispatchers import AskedDispatcher, Dispatchers
from workqueue.cli.top.picture import View, rows_of
from workqueue.cli.top.screen import screen
from workqueue.equipment import Equipment
from workqueue.errors import StoreError
from workqueue.fallbacks import FullQueue
from workqueue.interface import DeadLetteredKey
from workqueue.paging import MAX_LIMIT, PageRequest, Place
from workqueue.programs.access import CallFlags
from workqueue.programs.converters import DURATION, URL, whole
from workqueue.programs.ending import run_server
from workqueue.programs.flags import Flag, naming, with_flags
from workqueue.programs.settings import QueueFlags
from workqueue.safe_text import describe

__all__ = ["TopFlags", "top"]


@dataclass(frozen=True, slots=True)
class TopFlags:
    """What is looked at, and how often."""

    calls: CallFlags
    dispatcher: Annotated[
        tuple[str, ...],
        Flag(
            "also show what the dispatcher at this address knows: http://host:8091",
            takes=URL,
            many=True,
        ),
    ] = ()
    every: Annotated[timedelta, Flag("look again after this", takes=DURATION)] = timedelta(seconds=1)
    limit: Annotated[int, Flag("at most N keys of each kind", takes=whole(1, 1000))] = 20
    once: Annotated[bool, Flag("show it once, as plain text, and exit")] = False

    def dispatchers(self) -> Dispatchers:
        """Those to ask, to be entered.

        Raises:
            InvalidSettingError: there is none at such an address.
        """
        with naming("--dispatcher"):
            return Dispatchers([AskedDispatcher(url, self.calls.security(url)) for url in self.dispatcher])


@with_flags
def top(how: TopFlags, where: QueueFlags) -> None:
    """Show a queue as it is now, again and again, until q is pressed.

    Keys in progress, next to start, delayed and dead-lettered. Where the output is no terminal, plain text.
    """
    watching = _watch(where.url(look=True), how, how.dispatchers())
    if how.once:
        asyncio.run(watching)
    else:
        run_server(watching)  # a signal cancels it, so that the terminal is left as it was


async def _watch(url: str, how: TopFlags, asked: Dispatchers) -> None:
    this = asyncio.current_task()
    async with open_queue(url) as queue, asked as dispatchers:
        with screen(lambda: this and this.cancel(), plain=how.once) as shown:
            while True:
                shown.show(await _looked(queue, dispatchers, how))
                if how.once:
                    return
                await asyncio.sleep(how.every.total_seconds())


async def _looked(queue: FullQueue, dispatchers: Dispatchers, how: TopFlags) -> View:
    """What is there now. While the store does not answer that is said, unless it was to be looked at once."""
    name = Equipment.of(queue).name
    standings = asyncio.ensure_future(dispatchers.standings())
    try:
        view = await _found(queue, how.limit)
    except StoreError as error:
        if how.once:
            raise
        view = View(name, datetime.now(UTC), trouble=describe(error))
    finally:
        said = await standings
    return View(name, view.now, view.counts, view.stored, view.rows, said, view.trouble)


async def _found(queue: FullQueue, limit: int) -> View:
    snapshot = await queue.enumerate(limit)
    delayed = await queue.delayed(limit)
    dead = await queue.page(PageRequest(Place.DEAD_LETTERED, min(limit, MAX_LIMIT)))
    letters = cast(Sequence[DeadLetteredKey], dead.keys)
    counts, stored = await queue.counts(), await queue.configuration()
    now = datetime.now(UTC)
    longest = sorted(snapshot.in_progress, key=lambda each: each.attempt_began or now)[:limit]
    rows = list(rows_of(now, longest, [*snapshot.queued, *delayed], letters))
    return View("", now, counts, stored, rows)
