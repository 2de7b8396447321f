"""What an operator can do to a key, by the place where it is; each verb is one of the queue's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from workqueue.errors import InvalidOptionsError
from workqueue.fallbacks import FullQueue
from workqueue.optional import Found
from workqueue.paging import Place
from workqueue.release import release
from workqueue.run_now import run_now

__all__ = ["VERBS", "Verb", "handle_at", "verb_named", "verbs_at"]

_CHANGED = "it changed meanwhile; look again"


@dataclass(frozen=True, slots=True)
class Verb:
    """Something that can be done to a key.

    Args:
        name: in forms and in the log.
        label: on its button.
        done: what is said of keys to which it was done.
        places: where a key must be.
        act: does it to the handle of such a place; returns '' or why it was not done.
        warning: what to think of before; '' = it needs no second thought.
    """

    name: str
    label: str
    done: str
    places: Collection[Place]
    act: Callable[[FullQueue, Any], Awaitable[str]]
    warning: str = ""


async def _redrive(queue: FullQueue, letter: Any) -> str:
    return "" if await letter.requeue() else _CHANGED


async def _drop(queue: FullQueue, handle: Any) -> str:
    return "" if await handle.drop() else _CHANGED


async def _release(queue: FullQueue, running: Any) -> str:
    return "" if await release(queue, running) else "its attempt ended meanwhile"


async def _run_now(queue: FullQueue, delayed: Any) -> str:
    return "" if await run_now(queue, delayed) else "a floor holds it until its time"


VERBS = {
    verb.name: verb
    for verb in (
        Verb("redrive", "Re-drive", "re-driven", {Place.DEAD_LETTERED}, _redrive),
        Verb("run-now", "Run now", "made eligible", {Place.DELAYED}, _run_now),
        Verb(
            "release",
            "Release",
            "released",
            {Place.IN_PROGRESS},
            _release,
            "An owner loses its key before its lease lapses. If the owner lives, the key may run twice at once.",
        ),
        Verb(
            "drop",
            "Drop",
            "dropped",
            {Place.QUEUED, Place.DELAYED, Place.TWINS, Place.DEAD_LETTERED, Place.UNREADABLE},
            _drop,
            "What is dropped is gone for good.",
        ),
    )
}
"""Every verb by its name."""


def verb_named(name: str) -> Verb:
    """The verb of this name.

    Raises:
        InvalidOptionsError: there is none.
    """
    if name not in VERBS:
        raise InvalidOptionsError(f"there is no verb {name!r}")
    return VERBS[name]


def verbs_at(place: Place) -> list[Verb]:
    """What can be done to keys of `place`."""
    return [verb for verb in VERBS.values() if place in verb.places]


def handle_at(found: Found, place: Place) -> Any:
    """The handle of a key at `place`, or None if it is not there. A queued entry is not asked why it waits."""
    match place:
        case Place.IN_PROGRESS:
            return found.in_progress
        case Place.DEAD_LETTERED:
            return found.dead_letter
        case Place.UNREADABLE:
            return found.unreadable
        case _:
            return found.queued
