"""The commands about waiting keys, named or chosen by filters: drop, run-now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from workqueue.backends import open_queue
from workqueue.cli.keys import each_named
from workqueue.cli.matching import ChosenFlags, ExtentFlags, check_one_way, matching
from workqueue.fallbacks import FullQueue
from workqueue.paging import Place
from workqueue.programs import printing
from workqueue.programs.flags import with_flags
from workqueue.programs.key_arguments import Keys, StdinFlags, given_keys
from workqueue.programs.progress import progress
from workqueue.programs.settings import OutputFlags, QueueFlags
from workqueue.programs.sweep import Report, sweep
from workqueue.run_now import run_now as make_eligible

__all__ = ["drop", "run_now"]


@with_flags
def drop(
    source: StdinFlags,
    chosen: ChosenFlags,
    extent: ExtentFlags,
    where: QueueFlags,
    output: OutputFlags,
    keys: Keys = None,
) -> int:
    """Remove keys from the queue, and records that cannot be read.

    Say which: by KEY…, or by filters (all that are given must hold), or --all. An attempt under way goes on;
    `dead-letters drop` removes dead letters.
    """
    verb = _Verb("dropped", (Place.QUEUED, Place.DELAYED, Place.TWINS, Place.UNREADABLE), _drop, _drop_listed)
    return _waiting(verb, _Which(keys, source, chosen, extent), where, output)


@with_flags
def run_now(
    source: StdinFlags,
    chosen: ChosenFlags,
    extent: ExtentFlags,
    where: QueueFlags,
    output: OutputFlags,
    keys: Keys = None,
) -> int:
    """Make delayed keys eligible now.

    Say which: by KEY…, or by filters (all that are given must hold), or --all. What has a floor waits for its time.
    """
    verb = _Verb("advanced", (Place.DELAYED,), _advance, _advance_listed)
    return _waiting(verb, _Which(keys, source, chosen, extent), where, output)


@dataclass(frozen=True, slots=True)
class _Verb:
    """What is done to waiting keys: how it is called once done, where they are, and how, by name or by handle."""

    done: str
    places: Sequence[Place]
    by_name: Callable[[FullQueue, str], Awaitable[str]]
    listed: Callable[[FullQueue, Any], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class _Which:
    """The keys that are meant, as given."""

    keys: Sequence[str] | None
    source: StdinFlags
    chosen: ChosenFlags
    extent: ExtentFlags

    def named(self) -> Sequence[str] | None:
        """The keys, if they are named.

        Raises:
            InvalidSettingError: they are said in several ways, or in none.
        """
        is_named = bool(self.keys or self.source.stdin)
        check_one_way(is_named, self.chosen, self.extent)
        return given_keys(self.keys, self.source) if is_named else None


def _waiting(verb: _Verb, which: _Which, where: QueueFlags, output: OutputFlags) -> int:
    named = which.named()
    url = where.url(made=False, look=which.extent.dry_run)
    if named is not None and not which.extent.dry_run:
        return asyncio.run(each_named(verb.done, url, named, verb.by_name, which.extent.rate)).show(verb.done, output)
    if which.extent.dry_run:
        count = asyncio.run(_count(url, verb, which, named))
        if output.json:
            printing.document({"matching": count})
        else:
            printing.note(f"{count:,} keys are meant")
        return 0
    return asyncio.run(_chosen(url, verb, which)).show(verb.done, output)


async def _count(url: str, verb: _Verb, which: _Which, named: Sequence[str] | None) -> int:
    async with open_queue(url) as queue:
        if named is not None:
            return sum([bool(found.queued or found.unreadable) for found in [await queue.find(key) for key in named]])
        return sum([1 async for _ in matching(queue, verb.places, which.chosen.filter)])


async def _chosen(url: str, verb: _Verb, which: _Which) -> Report:
    async with open_queue(url) as queue:
        handles = matching(queue, verb.places, which.chosen.filter)
        acts = ((handle.key, partial(verb.listed, queue, handle)) async for handle in handles)
        with progress(verb.done, None) as advance:
            return await sweep(acts, which.extent.rate, advance=advance)


async def _drop(queue: FullQueue, key: str) -> str:
    found = await queue.find(key)
    entry = found.unreadable or found.queued
    if entry is None:
        return "it is not queued"
    return await _drop_listed(queue, entry)


async def _drop_listed(queue: FullQueue, entry: Any) -> str:
    return "" if await entry.drop() else "it changed meanwhile; try again"


async def _advance(queue: FullQueue, key: str) -> str:
    queued = (await queue.find(key)).queued
    if queued is None:
        return "it is not queued"
    return await _advance_listed(queue, queued) if queued.not_before else "it does not wait for a time"


async def _advance_listed(queue: FullQueue, delayed: Any) -> str:
    return "" if await make_eligible(queue, delayed) else "it has a floor, and waits for its time"
