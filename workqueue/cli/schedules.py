"""The commands about schedules: schedules add, apply, ls, pause, resume, run-now, rm."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import typer

from workqueue.backends import open_queue
from workqueue.errors import InvalidSettingError, KeyNotFoundError
from workqueue.options import MAX_PRIORITY
from workqueue.programs import printing
from workqueue.programs.converters import CONTENT, DURATION_OR_ZERO, PAIR, choice, spoken, whole
from workqueue.programs.ending import FAILED
from workqueue.programs.flags import Flag, with_flags
from workqueue.programs.settings import OutputFlags, QueueFlags

if TYPE_CHECKING:  # cron and time zones, which other commands do not need
    from workqueue.sources.schedules import Missed, Schedule, Shelf, Shelved

__all__ = ["PruneFlags", "SaidFlags", "add", "apply", "ls", "pause", "resume", "rm", "run_now"]

_NEXT = 3
_T = TypeVar("_T")

_Name = Annotated[str, typer.Argument(metavar="NAME", help="the schedule", show_default=False)]
_Names = Annotated[list[str], typer.Argument(metavar="NAME", help="the schedules", show_default=False)]
_When = Annotated[
    str,
    typer.Argument(
        metavar="WHEN", help="five cron fields in quotes, @hourly … @yearly, or '@every 90s'", show_default=False
    ),
]
_File = Annotated[Path, typer.Argument(metavar="FILE", help="a TOML file of schedules", show_default=False)]


@dataclass(frozen=True, slots=True)
class SaidFlags:
    """What a schedule enqueues, and how."""

    key: Annotated[str, Flag("the key to enqueue at every tick")] = ""
    zone: Annotated[str, Flag("the time zone of a cron line, such as Europe/Berlin")] = "UTC"
    priority: Annotated[int, Flag("higher starts first", takes=whole(-MAX_PRIORITY, MAX_PRIORITY))] = 0
    payload: Annotated[str | None, Flag("text kept with the key")] = None
    payload_file: Annotated[bytes | None, Flag("the bytes of a file kept with the key", takes=CONTENT)] = None
    meta: Annotated[tuple[tuple[str, str], ...], Flag("a name and value kept with the key", takes=PAIR, many=True)] = ()
    jitter: Annotated[timedelta, Flag("fire up to this long after each tick", takes=DURATION_OR_ZERO)] = timedelta(0)
    missed: Annotated[
        str,
        Flag("ticks that nobody fired: once for all, none, or each", takes=choice("once", "skip", "all")),
    ] = "once"

    def __post_init__(self) -> None:
        if not self.key:
            raise InvalidSettingError("--key: say which key the schedule enqueues")
        if self.payload is not None and self.payload_file is not None:
            raise InvalidSettingError("--payload and --payload-file: give one of them")

    def schedule(self, name: str, when: str) -> Schedule:
        """The schedule that was described.

        Raises:
            InvalidSettingError, InvalidKeyError, InvalidOptionsError: it is none, or would never fire.
        """
        from workqueue.sources.schedules import Schedule

        return Schedule(
            name,
            when,
            self.key,
            zone=self.zone,
            priority=self.priority,
            payload=self.payload.encode() if self.payload is not None else self.payload_file,
            meta=dict(self.meta),
            jitter=self.jitter,
            missed=cast("Missed", self.missed),
        )


@with_flags
def add(name: _Name, when: _When, said: SaidFlags, where: QueueFlags, output: OutputFlags) -> None:
    """Add a schedule, or change it.

    `dispatcher schedules`, or a dispatcher with --schedules, fires it. Its next firings are shown. One that is there as
    it is stays untouched; a changed one counts from now.
    """
    schedule = said.schedule(name, when)

    async def declare(shelf: Shelf) -> tuple[list[str], list[datetime]]:
        changed = await shelf.declare([schedule])
        kept = next(kept for kept in await shelf.listing() if kept.name == name)
        return changed, _firings(kept)

    changed, firings = _on_shelf(where, declare, made=True)
    with printing.done():
        if output.json:
            printing.document({"schedule": name, "changed": bool(changed), "next": firings})
        else:
            printing.note(f"{'kept' if changed else 'unchanged:'} {name}")
            printing.facts([("next", firing) for firing in firings])


@dataclass(frozen=True, slots=True)
class PruneFlags:
    """What becomes of other schedules."""

    prune: Annotated[bool, Flag("remove every schedule that the file does not have", spell_out=True)] = False


@with_flags
def apply(file: _File, prune: PruneFlags, where: QueueFlags, output: OutputFlags) -> None:
    """Add or change all schedules of a file; docs/schedules.md says what one looks like."""
    from workqueue.sources.schedules.file import read_schedules

    schedules = read_schedules(file)

    async def declare(shelf: Shelf) -> tuple[list[str], list[str]]:
        named = {schedule.name for schedule in schedules}
        others = [kept.name for kept in await shelf.listing() if kept.name not in named] if prune.prune else []
        changed = await shelf.declare(schedules)
        return changed, [name for name in others if await shelf.remove(name)]

    changed, removed = _on_shelf(where, declare, made=True)
    with printing.done():
        if output.json:
            printing.document({"changed": changed, "removed": removed})
        else:
            printing.note(f"changed {len(changed)}, removed {len(removed)}, unchanged {len(schedules) - len(changed)}")


@with_flags
def ls(where: QueueFlags, output: OutputFlags) -> None:
    """List the schedules: what they enqueue, their last tick, and when they fire next."""
    listed = _on_shelf(where, lambda shelf: shelf.listing())
    if output.json:
        printing.document([{**_row(kept), "next": _firings(kept)} for kept in listed])
    elif listed:
        printing.listing([_row(kept) for kept in listed])
    else:
        printing.note("there are no schedules")


@with_flags
def pause(names: _Names, where: QueueFlags, output: OutputFlags) -> int:
    """Fire schedules no more until resume. What passes meanwhile is not missed."""
    return _on_each("paused", names, where, output, lambda shelf, name: shelf.pause(name))


@with_flags
def resume(names: _Names, where: QueueFlags, output: OutputFlags) -> int:
    """Fire paused schedules again, from now on."""
    return _on_each("resumed", names, where, output, lambda shelf, name: shelf.resume(name))


@with_flags
def rm(names: _Names, where: QueueFlags, output: OutputFlags) -> int:
    """Remove schedules. Keys that they enqueued stay in the queue."""

    async def remove(shelf: Shelf, name: str) -> None:
        if not await shelf.remove(name):
            raise KeyNotFoundError(f"there is no schedule {name!r}")

    return _on_each("removed", names, where, output, remove)


@with_flags
def run_now(name: _Name, where: QueueFlags, output: OutputFlags) -> None:
    """Enqueue a schedule's key now. Its ticks stay what they are."""

    async def run(shelf: Shelf) -> str:
        async with open_queue(where.url(made=False)) as target:
            return (await shelf.run_now(name, target)).key

    key = _on_shelf(where, run)
    with printing.done():
        printing.document({"enqueued": key}) if output.json else printing.note(f"enqueued {key}")


def _on_shelf(where: QueueFlags, act: Callable[[Shelf], Awaitable[_T]], *, made: bool = False) -> _T:
    """The result of `act` on the schedules beside the queue."""
    from workqueue.sources.schedules import Shelf, schedules_url

    async def run() -> _T:
        async with open_queue(schedules_url(where.url(made=made))) as schedules:
            return await act(Shelf(schedules))

    return asyncio.run(run())


def _on_each(
    verb: str,
    names: Sequence[str],
    where: QueueFlags,
    output: OutputFlags,
    act: Callable[[Shelf, str], Awaitable[None]],
) -> int:
    """Do it to each schedule; returns the exit code."""

    async def on_each(shelf: Shelf) -> tuple[list[str], list[str]]:
        done: list[str] = []
        unknown: list[str] = []
        for name in names:
            try:
                await act(shelf, name)
            except KeyNotFoundError:
                unknown.append(name)
            else:
                done.append(name)
        return done, unknown

    done, unknown = _on_shelf(where, on_each)
    with printing.done():
        if output.json:
            printing.document({verb: done, "unknown": unknown})
        else:
            printing.note(f"{verb} {len(done)}")
    if not output.json:
        printing.complaints(f"there is no schedule {name}" for name in unknown)
    return FAILED if unknown else 0


def _firings(kept: Shelved) -> list[datetime]:
    """The next firings of a schedule, none while it is paused."""
    if kept.schedule is None or kept.next is None:
        return []
    return list(islice(kept.schedule.firings(kept.after_us), _NEXT))


def _row(kept: Shelved) -> dict[str, object]:
    said = kept.schedule
    return {
        "name": kept.name,
        "when": said and said.when,
        "zone": said and said.zone,
        "key": said and said.key,
        "last": kept.last,
        "next": kept.next,
        "missed": said and said.missed,
        "jitter": spoken(said.jitter) if said and said.jitter else None,
        "paused": bool(said and said.paused),
        "problem": kept.problem,
    }
