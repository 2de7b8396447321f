"""The commands about keys that are named or chosen by filters: drop, run-now, release."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from workqueue.backends import open_queue
from workqueue.cli.keys import each_named
from workqueue.cli.matching import ChosenFlags, ExtentFlags, check_one_way, matching
from workqueue.errors import InvalidSettingError
from workqueue.fallbacks import FullQueue
from workqueue.optional import Found
from workqueue.paging import Place
from workqueue.programs import printing
from workqueue.programs.flags import Flag, with_flags
from workqueue.programs.key_arguments import Keys, StdinFlags, given_keys
from workqueue.programs.progress import progress
from workqueue.programs.settings import OutputFlags, QueueFlags
from workqueue.programs.sweep import Report, sweep
from workqueue.release import release as take_from_owner
from workqueue.run_now import run_now as make_eligible

__all__ = ["MeantFlags", "ReleaseFlags", "drop", "release", "run_now"]


@dataclass(frozen=True, slots=True)
class MeantFlags:
    """Which keys: those that are named, or those that are chosen."""

    source: StdinFlags
    chosen: ChosenFlags
    extent: ExtentFlags

    def named(self, keys: Keys) -> Sequence[str] | None:
        """`keys` and those of standard input, if keys are named.

        Raises:
            InvalidSettingError: it is said in several ways which are meant, or in none.
        """
        is_named = bool(keys or self.source.stdin)
        check_one_way(is_named, self.chosen, self.extent)
        return given_keys(keys, self.source) if is_named else None


@with_flags
def drop(meant: MeantFlags, where: QueueFlags, output: OutputFlags, keys: Keys = None) -> int:
    """Remove keys from the queue, and records that cannot be read.

    Say which: by KEY…, or by filters (all that are given must hold), or --all. An attempt under way goes on;
    `dead-letters drop` removes dead letters.
    """
    places = (Place.QUEUED, Place.DELAYED, Place.TWINS, Place.UNREADABLE)
    verb = _Verb("dropped", places, lambda found: found.unreadable or found.queued, "it is not queued", _drop)
    return _done(verb, meant, where, output, keys)


@with_flags
def run_now(meant: MeantFlags, where: QueueFlags, output: OutputFlags, keys: Keys = None) -> int:
    """Make delayed keys eligible now.

    Say which: by KEY…, or by filters (all that are given must hold), or --all. What has a floor waits for its time.
    """
    verb = _Verb("advanced", (Place.DELAYED,), lambda found: found.queued, "it is not queued", _advance)
    return _done(verb, meant, where, output, keys)


@dataclass(frozen=True, slots=True)
class ReleaseFlags:
    """Which keys, and what has to be said before an owner loses one."""

    meant: MeantFlags
    force: Annotated[bool, Flag("I know that the owner is gone, or may run beside the next", spell_out=True)] = False

    def __post_init__(self) -> None:
        if not self.force and not self.meant.extent.dry_run:
            raise InvalidSettingError(
                "--force: a key in progress is its owner's until its lease lapses; give --force to take it sooner"
            )


@with_flags
def release(how: ReleaseFlags, where: QueueFlags, output: OutputFlags, keys: Keys = None) -> int:
    """Take keys in progress from their owners.

    Say which: by KEY…, or by filters (all that are given must hold), or --all. They are eligible again at once,
    attempts kept, and their owners learn of it. A lease lapses by itself when its process is gone: this is for not
    waiting that long.
    """
    verb = _Verb("released", (Place.IN_PROGRESS,), lambda found: found.in_progress, "it is not in progress", _release)
    return _done(verb, how.meant, where, output, keys)


@dataclass(frozen=True, slots=True)
class _Verb:
    """What is done to many keys.

    Args:
        done: what they are called that it was done to.
        places: where those that nobody named are looked for.
        entry: what it is done to, of a key that is named; None = there is nothing.
        missing: what is said then.
        act: does it to the handle of one; returns '' or why it was not done.
    """

    done: str
    places: Sequence[Place]
    entry: Callable[[Found], Any]
    missing: str
    act: Callable[[FullQueue, Any], Awaitable[str]]

    async def by_name(self, queue: FullQueue, key: str) -> str:
        entry = self.entry(await queue.find(key))
        return self.missing if entry is None else await self.act(queue, entry)


def _done(verb: _Verb, meant: MeantFlags, where: QueueFlags, output: OutputFlags, keys: Keys) -> int:
    named, extent = meant.named(keys), meant.extent
    url = where.url(made=False, look=extent.dry_run)
    if named is not None and not extent.dry_run:
        return asyncio.run(each_named(verb.done, url, named, verb.by_name, extent.rate)).show(verb.done, output)
    if extent.dry_run:
        count = asyncio.run(_count(url, verb, meant, named))
        if output.json:
            printing.document({"matching": count})
        else:
            printing.note(f"{count:,} keys are meant")
        return 0
    return asyncio.run(_chosen(url, verb, meant)).show(verb.done, output)


async def _count(url: str, verb: _Verb, meant: MeantFlags, named: Sequence[str] | None) -> int:
    async with open_queue(url) as queue:
        if named is not None:
            return sum([verb.entry(await queue.find(key)) is not None for key in named])
        return sum([1 async for _ in matching(queue, verb.places, meant.chosen.filter)])


async def _chosen(url: str, verb: _Verb, meant: MeantFlags) -> Report:
    async with open_queue(url) as queue:
        handles = matching(queue, verb.places, meant.chosen.filter)
        acts = ((handle.key, partial(verb.act, queue, handle)) async for handle in handles)
        with progress(verb.done, None) as advance:
            return await sweep(acts, meant.extent.rate, advance=advance)


async def _drop(queue: FullQueue, entry: Any) -> str:
    return "" if await entry.drop() else "it changed meanwhile; try again"


async def _advance(queue: FullQueue, queued: Any) -> str:
    if not queued.not_before:
        return "it does not wait for a time"
    return "" if await make_eligible(queue, queued) else "it has a floor, and waits for its time"


async def _release(queue: FullQueue, running: Any) -> str:
    return "" if await take_from_owner(queue, running) else "its attempt ended meanwhile"
