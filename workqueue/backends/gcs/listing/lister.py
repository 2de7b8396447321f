"""Stage 3: listing what is queued and dead-lettered: page by page, in the background, one listing at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from workqueue.backends.gcs.address import Place
from workqueue.backends.gcs.api.objects import Objects, Stored
from workqueue.backends.gcs.listing.aside import Aside, Sieve
from workqueue.backends.gcs.listing.kept import Kept
from workqueue.backends.gcs.listing.overlay import Overlay
from workqueue.backends.gcs.listing.packed import Candidate
from workqueue.backends.gcs.listing.running import Running
from workqueue.backends.gcs.metadata import entry_of
from workqueue.clock import Clock
from workqueue.errors import StoreError
from workqueue.interface import KeyStatus

__all__ = ["Letters", "Listed", "Lister", "Reader"]

log = logging.getLogger(__name__)

_KEYS_AT_ONCE = 250  # the event loop has others to serve
_REST_SECONDS = 0.01
_MOST_PAGES_OF_LETTERS = 10


@dataclass(slots=True)
class Letters:
    """The dead letters of a bucket: generations by key. Of more than ten pages the rest is not known."""

    generations: dict[str, int] = field(default_factory=dict)
    are_all: bool = False
    pages: int = 0


@dataclass(slots=True)
class Listed:
    """One listing, kept up to date with what this process does.

    Args:
        kept: the queued keys.
        own: what this process did since the listing was begun.
        letters: the dead letters.
        pages: how many pages the listing took.
        began_us: when it was begun, by the steady clock; None: nothing was listed yet.
    """

    kept: Kept
    own: Overlay = field(default_factory=Overlay)
    letters: Letters = field(default_factory=Letters)
    pages: int = 0
    began_us: int | None = None


class Reader(Protocol):
    """For whom listings are made.

    `running` is what is in progress at the moment, `aside` takes what cannot be processed, and `take_over` every new
    listing.
    """

    running: Running
    aside: Aside

    def take_over(self, listed: Listed) -> None: ...


class Lister:
    """Makes listings of one bucket.

    Args:
        objects: the bucket.
        place: the names in it.
        keep: the most queued keys that a listing keeps.
        clock: judges not-before.
        reader: for whom it lists.
    """

    def __init__(self, objects: Objects, place: Place, keep: int, clock: Clock, reader: Reader) -> None:
        self._objects = objects
        self._place = place
        self._keep = keep
        self._clock = clock
        self._reader = reader
        self._task: asyncio.Task[None] | None = None
        self._waiting = 0  # how many wait for the listing under way
        self.meanwhile: Overlay | None = None
        """What this process does while a listing is under way; None: none is."""

    def begin(self) -> asyncio.Task[None]:
        """Begin a listing, unless one is under way."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._list(), name="gcs-listing")
            self._task.add_done_callback(_log_failure)
        return self._task

    @property
    def under_way(self) -> bool:
        """Whether a listing is under way."""
        return self._task is not None and not self._task.done()

    async def wait(self, seconds: float | None) -> None:
        """Wait for the listing under way, or a new one; at most `seconds`.

        Raises:
            StoreError: it failed.
        """
        task = self.begin()
        await self._ended(task, seconds)
        if task.done() and not task.cancelled():
            task.result()

    async def wait_for_new(self, seconds: float | None) -> None:
        """Wait for a listing that begins now: one under way may have passed by what was stored before this call.

        Raises:
            StoreError: it failed.
        """
        if self._task is not None and not self._task.done():
            await self._ended(self._task, seconds)
        await self.wait(seconds)

    async def _ended(self, task: asyncio.Task[None], seconds: float | None) -> None:
        self._waiting += 1
        try:
            await asyncio.wait((task,), timeout=seconds)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Stop listing."""
        if self._task is not None:
            self._task.cancel()

    async def dead_letters(self) -> AsyncIterator[list[tuple[str, Stored]]]:
        """Every dead letter, page by page."""
        sieve = Sieve(self._reader.aside, KeyStatus.DEAD_LETTER)
        async for items in self._pages(self._place.dead):
            letters = [(stored.name[len(self._place.dead) :], stored) for stored in map(self._objects.stored, items)]
            yield [each for each in letters if sieve.passes(*each)]
        sieve.end()

    async def _list(self) -> None:
        began_us, own = self._clock.steady_us(), Overlay()
        self.meanwhile = own
        try:
            kept, pages = await self._list_queued()
            letters = await self._list_letters()
        finally:
            self.meanwhile = None
        for candidate in own.queued():
            kept.add(candidate, self._clock.wall_us(), self._reader.running.taken)
        if kept.forgotten:
            log.info("%d queued keys are more than are kept in memory (keep=%d)", kept.forgotten, self._keep)
        self._reader.take_over(Listed(kept, own, letters, pages + letters.pages, began_us))

    async def _list_queued(self) -> tuple[Kept, int]:
        kept, pages, sieve = Kept(self._keep), 0, Sieve(self._reader.aside, KeyStatus.QUEUED)
        async for items in self._pages(self._place.queued):
            for start in range(0, len(items), _KEYS_AT_ONCE):
                found = map(self._candidate, items[start : start + _KEYS_AT_ONCE])
                candidates = [each for each in found if sieve.passes(each.key, each.stored)]
                kept.add_page(candidates, self._clock.wall_us(), self._reader.running.taken)
                await self._give_way()
            pages += 1
        sieve.end()
        return kept, pages

    async def _list_letters(self) -> Letters:
        letters, token, skip = Letters(), "", len(self._place.dead)
        while letters.pages < _MOST_PAGES_OF_LETTERS and not letters.are_all:
            page = await self._objects.page(self._place.dead, token, names_only=True)
            found = ((item["name"][skip:], int(item["generation"])) for item in page.items)
            letters.generations.update((key, generation) for key, generation in found if key)
            letters.pages, token = letters.pages + 1, page.next_token
            letters.are_all = not token
        return letters

    async def _give_way(self) -> None:
        """Let starts and settles go first: a listing that nobody waits for has until the next one."""
        await asyncio.sleep(0 if self._waiting else _REST_SECONDS)

    async def _pages(self, prefix: str) -> AsyncIterator[list[dict[str, Any]]]:
        token = ""
        while True:
            page = await self._objects.page(prefix, token)
            yield page.items
            token = page.next_token
            if not token:
                return

    def _candidate(self, item: dict[str, Any]) -> Candidate:
        stored = self._objects.stored(item)
        key = stored.name[len(self._place.queued) :]
        entry = entry_of(stored.metadata, key, stored.created_us, stored.size)
        return Candidate(key, stored, entry, listed=True)


def _log_failure(task: asyncio.Task[None]) -> None:
    """Whoever waits for a listing gets its error; nobody waits for one in the background."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, StoreError):
        log.warning("listing the queued keys failed, the list made before is still used: %s", error)
    elif error is not None:
        log.error("listing the queued keys failed", exc_info=error)
