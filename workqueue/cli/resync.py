"""The command that enqueues every key once per period: resync."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, cast

from workqueue.cli.sources import PRIORITY, Always, SourceFlags, SourcePort, showing
from workqueue.errors import InvalidSettingError
from workqueue.programs import printing
from workqueue.programs.converters import DURATION, Converter
from workqueue.programs.ending import run_server
from workqueue.programs.flags import Flag, naming, with_flags
from workqueue.programs.imported import imported

if TYPE_CHECKING:
    from workqueue.fallbacks import FullQueue
    from workqueue.rpc.client import Client
    from workqueue.sources.resync import ListKeys, Resync

__all__ = ["ListingFlags", "resync"]


@dataclass(frozen=True, slots=True)
class ListingFlags:
    """Where keys are listed, and how often each is enqueued."""

    keys: Annotated[
        str | None, Flag("a function of yours that lists every key", takes=Converter("MODULE:NAME", str))
    ] = None
    command: Annotated[str | None, Flag("or a command that writes every key, one a line")] = None
    period: Annotated[timedelta, Flag("every key once in this time", takes=DURATION)] = timedelta(days=1)
    every: Annotated[timedelta, Flag("list once in this time; --period is a multiple of it", takes=DURATION)] = (
        timedelta(minutes=10)
    )
    priority: Annotated[int, Flag("of the keys; an event about a key raises it", takes=PRIORITY)] = -100
    once: Annotated[bool, Flag("do the present slot and exit: for a cron job that runs once per --every")] = False

    def listing(self) -> ListKeys:
        """What lists the keys.

        Raises:
            InvalidSettingError: neither or both ways were given, or one cannot be used.
        """
        from workqueue.sources.resync import listed_by

        if (self.keys is None) == (self.command is None):
            raise InvalidSettingError("--keys or --command: say in one way who lists the keys")
        if self.command is not None:
            with naming("--command"):
                return listed_by(_words(self.command))
        found = imported("--keys", str(self.keys))
        if not callable(found):
            raise InvalidSettingError(f"--keys: {self.keys} is no function that lists keys")
        return cast("Callable[[], Any]", found)


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:  # a quotation mark without its pair
        raise InvalidSettingError(f"{command!r} is no command line: {error}") from error


@with_flags
def resync(listing: ListingFlags, source: SourceFlags, port: SourcePort) -> None:
    """Enqueue every key once per period, at an even pace.

    The keys are listed once per slot (--every), and those are enqueued whose turn is in it; when that is, is computed
    from the key and the period. So slots may be done by a loop or by cron jobs, in any process. --queue may be a
    receiver.
    """
    from workqueue.sources.resync import Resync, ResyncTimes

    with naming("--period, --every"):
        times = ResyncTimes(listing.period, listing.every)
    keys, place = listing.listing(), source.opened()

    def made(queue: Client | FullQueue) -> Resync:
        return Resync(keys, queue, times, priority=listing.priority)

    if listing.once:
        enqueued = asyncio.run(_resync_once(place, made))
        with printing.done():
            printing.note(f"enqueued {enqueued}")
    else:
        run_server(_resync(place, made, source, port.http_port))


async def _resync_once(place: Client | FullQueue, made: Callable[[Client | FullQueue], Resync]) -> int:
    async with place as queue:
        return await made(queue).once()


async def _resync(
    place: Client | FullQueue, made: Callable[[Client | FullQueue], Resync], source: SourceFlags, port: int
) -> None:
    async with place as queue, showing(queue, source.listen, port) as follow:
        follow(Always())
        await made(queue).run()
