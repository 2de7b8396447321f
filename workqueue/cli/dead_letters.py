"""The commands about keys that were given up: dead-letters ls, redrive, drop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated

from workqueue.backends import open_queue
from workqueue.cli.listing import LimitFlags, title
from workqueue.errors import InvalidSettingError
from workqueue.fallbacks import FullQueue
from workqueue.interface import DeadLetteredKey
from workqueue.programs import printing
from workqueue.programs.converters import DURATION, RATE
from workqueue.programs.flags import Flag, with_flags
from workqueue.programs.key_arguments import Keys, StdinFlags, given_keys
from workqueue.programs.progress import is_watched, progress
from workqueue.programs.settings import OutputFlags, QueueFlags
from workqueue.programs.sweep import Report, sweep
from workqueue.searching import Filter
from workqueue.sweeping import Act

__all__ = ["MatchFlags", "SweepFlags", "drop", "ls", "redrive"]

_Verb = Callable[[DeadLetteredKey], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class MatchFlags:
    """Which dead letters; all that is given must hold."""

    prefix: Annotated[str, Flag("keys that start so")] = ""
    older_than: Annotated[timedelta | None, Flag("given up longer ago than this", takes=DURATION)] = None
    newer_than: Annotated[timedelta | None, Flag("given up less long ago than this", takes=DURATION)] = None
    error: Annotated[str, Flag("errors that contain this text")] = ""

    def given(self) -> bool:
        """Whether they narrow anything down."""
        return bool(self.prefix or self.older_than or self.newer_than or self.error)

    def match(self, letter: DeadLetteredKey, now: datetime) -> bool:
        """Whether `letter` is one of those meant."""
        is_new = self.newer_than is None or now - letter.failed_time < self.newer_than
        return is_new and Filter(self.prefix, older_than=self.older_than, error=self.error).matches(letter, now)


@dataclass(frozen=True, slots=True)
class SweepFlags:
    """How far to go, and how fast."""

    all: Annotated[bool, Flag("every dead letter", spell_out=True)] = False
    rate: Annotated[float | None, Flag("how many at most, such as 10/s", takes=RATE)] = None
    dry_run: Annotated[bool, Flag("only list the dead letters that are meant")] = False


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The dead letters to go through: those of `keys`, or without keys those that match."""

    keys: tuple[str, ...]
    match: MatchFlags

    def nothing(self) -> str:
        """What to say where there are none."""
        if self.keys:
            return "none of these keys is dead-lettered"
        return "no dead letter matches" if self.match.given() else "there are no dead letters"

    async def letters(self, queue: FullQueue) -> AsyncIterator[tuple[str, DeadLetteredKey | None]]:
        """Each key with its dead letter; None for a key that has none."""
        for key in self.keys:
            yield key, (await queue.find(key)).dead_letter
        if not self.keys:
            now = datetime.now(UTC)
            async for letter in (await queue.enumerate(0)).dead_letters:
                if self.match.match(letter, now):
                    yield letter.key, letter


@with_flags
def ls(match: MatchFlags, size: LimitFlags, where: QueueFlags, output: OutputFlags) -> None:
    """List dead letters."""
    chosen = _Chosen((), match)
    _listed(*asyncio.run(_list(where.url(look=True), chosen, size.limit)), chosen, output)


@with_flags
def redrive(
    source: StdinFlags, match: MatchFlags, extent: SweepFlags, where: QueueFlags, output: OutputFlags, keys: Keys = None
) -> int:
    """Queue dead-lettered keys again, with attempts 0.

    Say which: by KEY…, or by filters (all that are given must hold), or --all.
    """
    chosen = _chosen(keys, source, match, extent)
    return _sweep(where.url(made=False, look=extent.dry_run), chosen, extent, "redriven", output)


@with_flags
def drop(
    source: StdinFlags, match: MatchFlags, extent: SweepFlags, where: QueueFlags, output: OutputFlags, keys: Keys = None
) -> int:
    """Remove dead letters for good.

    Say which: by KEY…, or by filters (all that are given must hold), or --all.
    """
    chosen = _chosen(keys, source, match, extent)
    return _sweep(where.url(made=False, look=extent.dry_run), chosen, extent, "dropped", output)


def _chosen(keys: list[str] | None, source: StdinFlags, match: MatchFlags, extent: SweepFlags) -> _Chosen:
    by_key = bool(keys or source.stdin)
    if [by_key, match.given(), extent.all].count(True) != 1:
        raise InvalidSettingError(
            "say which dead letters in one way: KEY…, or --prefix, --older-than, --newer-than, --error, or --all"
        )
    return _Chosen(tuple(given_keys(keys, source)) if by_key else (), match)


def _sweep(url: str, chosen: _Chosen, extent: SweepFlags, verb: str, output: OutputFlags) -> int:
    if extent.dry_run:
        _listed(*asyncio.run(_list(url, chosen)), chosen, output)
        return 0
    return asyncio.run(_apply(url, chosen, verb, extent.rate)).show(verb, output)


async def _list(url: str, chosen: _Chosen, limit: int | None = None) -> tuple[list[DeadLetteredKey], int]:
    """The first `limit` of them, None = all, and how many there are."""
    listed: list[DeadLetteredKey] = []
    total = 0
    async with open_queue(url) as queue:
        async for _, letter in chosen.letters(queue):
            if letter is None:
                continue
            total += 1
            if limit is None or total <= limit:
                listed.append(letter)
            elif not chosen.match.given():
                return listed, max((await queue.counts()).dead_lettered, total)
    return listed, total


def _listed(letters: list[DeadLetteredKey], total: int, chosen: _Chosen, output: OutputFlags) -> None:
    rows = [printing.dead_letter(letter) for letter in letters]
    if output.json:
        printing.document({"dead_letters": rows, "total": total})
    elif rows:
        printing.listing(rows, title("dead letters", len(rows), total) if len(rows) < total else "")
    else:
        printing.note(chosen.nothing())


async def _apply(url: str, chosen: _Chosen, verb: str, rate: float | None) -> Report:
    async with open_queue(url) as queue:
        with progress(verb, await _total(queue, chosen)) as advance:
            return await sweep(_acts(queue, chosen, _VERBS[verb]), rate, advance=advance)


async def _total(queue: FullQueue, chosen: _Chosen) -> int | None:
    """How many there are to do, where somebody sees it; None where only looking at each would show it."""
    if chosen.match.given() or not is_watched():
        return None
    return len(chosen.keys) or (await queue.counts()).dead_lettered


async def _acts(queue: FullQueue, chosen: _Chosen, verb: _Verb) -> AsyncIterator[tuple[str, Act]]:
    async for key, letter in chosen.letters(queue):
        yield key, partial(_act, letter, verb)


async def _act(letter: DeadLetteredKey | None, verb: _Verb) -> str:
    if letter is None:
        return "it is not dead-lettered"
    return "" if await verb(letter) else "it changed meanwhile; look again"


async def _redrive(letter: DeadLetteredKey) -> bool:
    return await letter.requeue()


async def _drop(letter: DeadLetteredKey) -> bool:
    return await letter.drop()


_VERBS: dict[str, _Verb] = {"redriven": _redrive, "dropped": _drop}
