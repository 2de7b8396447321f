"""The commands about a queue as a whole: stats, pause, resume, configure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from workqueue.backends import open_queue
from workqueue.equipment import Equipment
from workqueue.errors import InvalidSettingError
from workqueue.optional import Counts
from workqueue.programs import printing
from workqueue.programs.converters import Converter, choice, number, whole
from workqueue.programs.flags import Flag, with_flags
from workqueue.programs.settings import OutputFlags, QueueFlags
from workqueue.throttle import Configuration

__all__ = ["ConfigureFlags", "configure", "pause", "resume", "stats"]

_Change = Callable[[Configuration], Configuration]


@with_flags
def stats(where: QueueFlags, output: OutputFlags) -> None:
    """Count the keys by where they are.

    Also how long the oldest eligible key has waited, and the settings stored with the queue.
    """
    name, counts, stored = asyncio.run(_stats(where.url(look=True)))
    if output.json:
        printing.document({"queue": name, **_counted(counts), "configuration": printing.configuration(stored)})
    else:
        printing.facts([*_described(name, counts), *_settings(stored)])


async def _stats(url: str) -> tuple[str, Counts, Configuration]:
    async with open_queue(url) as queue:
        return Equipment.of(queue).name, await queue.counts(), await queue.configuration()


def _counted(counts: Counts) -> Mapping[str, object]:
    return {
        "queued": counts.queued,
        "not_before": counts.not_before,
        "twins": counts.twins,
        "in_progress": counts.in_progress,
        "dead_lettered": counts.dead_lettered,
        "oldest_queued_seconds": counts.oldest_queued_seconds,
        "max_attempts": counts.max_attempts,
        "in_progress_by_owner": dict(counts.in_progress_by_owner),
        "unreadable": counts.unreadable,
    }


def _described(name: str, counts: Counts) -> Iterator[tuple[str, object]]:
    yield "queue", name
    yield "queued", counts.queued
    yield "not before", counts.not_before
    yield "twins", counts.twins
    yield "in progress", counts.in_progress
    for owner, keys in sorted(counts.in_progress_by_owner.items()):
        yield f"  of {owner or 'no name'}", keys
    yield "dead-lettered", counts.dead_lettered
    yield "oldest queued", f"{counts.oldest_queued_seconds:.1f} s"
    yield "most attempts", counts.max_attempts
    yield "unreadable", counts.unreadable or None


def _settings(stored: Configuration) -> Iterator[tuple[str, object]]:
    yield "paused", "yes" if stored.paused else "no"
    yield "concurrency", stored.concurrency or "as each dispatcher says"
    yield "starts per second", stored.starts_per_second or "no limit"


@with_flags
def pause(where: QueueFlags, output: OutputFlags) -> None:
    """Start no more keys until resume.

    All dispatchers obey within one round. Attempts under way go on, and enqueues are kept.
    """
    _shown(asyncio.run(_change(where.url(), lambda stored: replace(stored, paused=True))), output)


@with_flags
def resume(where: QueueFlags, output: OutputFlags) -> None:
    """Start keys again after a pause."""
    _shown(asyncio.run(_change(where.url(), lambda stored: replace(stored, paused=False))), output)


@dataclass(frozen=True, slots=True)
class ConfigureFlags:
    """What is to be stored with the queue."""

    concurrency: Annotated[int | None, Flag("at most N in progress, over all dispatchers", takes=whole(1))] = None
    starts_per_second: Annotated[
        float | None, Flag("at most N starts a second, over all dispatchers", takes=Converter("NUMBER", number))
    ] = None
    clear: Annotated[
        tuple[str, ...], Flag("forget a stored setting", takes=choice("concurrency", "starts-per-second"), many=True)
    ] = ()

    def __post_init__(self) -> None:
        for name, value in (("concurrency", self.concurrency), ("starts-per-second", self.starts_per_second)):
            if value is not None and name in self.clear:
                raise InvalidSettingError(f"--clear {name} and --{name}: give one of them")

    def applied(self, stored: Configuration) -> Configuration:
        """What is stored after these flags: those not given stay as they are."""
        concurrency = None if "concurrency" in self.clear else self.concurrency or stored.concurrency
        starts = None if "starts-per-second" in self.clear else self.starts_per_second or stored.starts_per_second
        return Configuration(concurrency, stored.paused, starts)


@with_flags
def configure(change: ConfigureFlags, where: QueueFlags, output: OutputFlags) -> None:
    """Change and show the settings kept in the queue.

    All dispatchers obey within one round. The lower of the stored concurrency and a dispatcher's own counts. After a
    reduction nothing is cancelled.
    """
    _shown(asyncio.run(_change(where.url(), change.applied)), output)


async def _change(url: str, change: _Change) -> Configuration:
    async with open_queue(url) as queue:
        stored = await queue.configuration()
        changed = change(stored)
        if changed != stored:
            await queue.configure(changed)
        return changed


def _shown(stored: Configuration, output: OutputFlags) -> None:
    with printing.done():
        if output.json:
            printing.document(printing.configuration(stored))
        else:
            printing.facts(_settings(stored))
