"""Stage 3: what is known of a bucket: a fresh look at what is in progress, and a kept list of what is queued.

Listing is what a bucket charges most for, in money and in time. So a round looks at `in-progress` only; queued keys are
listed every `refresh`, or when the kept list runs dry, in the background where that takes long, and in between the list
is kept up to date with what this process does itself. A list that is wrong about a key costs a lost start, no more:
every start is pinned to the version that was listed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from workqueue.backends.gcs.address import GCSSettings, Place
from workqueue.backends.gcs.api.objects import Objects, Stored
from workqueue.backends.gcs.listing.kept import Candidate, Kept, pack, unpack
from workqueue.backends.gcs.listing.running import Running, Seen
from workqueue.backends.gcs.metadata import entry_of
from workqueue.clock import Clock, duration_us
from workqueue.errors import StoreError
from workqueue.metrics import QueueMetrics
from workqueue.rules import Entry

__all__ = ["Listing"]

log = logging.getLogger(__name__)

_FREE_PAGES = 10  # a listing of no more pages than these may be repeated at will
_US_A_PAGE = 100_000  # one that is longer, at most at this pace, so that it does not become all that we do
_SLICE = 250  # keys filed at once; the event loop has others to serve
_REST_SECONDS = 0.01
_DEAD_PAGES = 10
_FRESH_US = 1_000_000
_PATIENCE_SECONDS = 3.0  # a lease step waits no longer for a listing: who probes our health would take us for dead
_FORGET_US = 600_000_000  # beside the refresh period; a process that only enqueues must not keep what it never reads

_Version = tuple[int, int] | None


class Listing:
    """What is known of one bucket.

    Args:
        objects: the bucket.
        place: the names in it.
        settings: how old and how long the kept list may become.
        clock: judges not-before and the list's age.
        metrics: told how long listings take.
        refreshed: called when a new list of the queued keys is there.
    """

    def __init__(
        self,
        objects: Objects,
        place: Place,
        settings: GCSSettings,
        clock: Clock,
        metrics: QueueMetrics,
        refreshed: Callable[[], None],
    ) -> None:
        self._objects = objects
        self._place = place
        self._keep = settings.keep
        self._refresh_us = duration_us(settings.refresh)
        self._clock = clock
        self._metrics = metrics
        self._refreshed = refreshed
        self.running = Running()
        self.kept = Kept(self._keep)
        self.dead: dict[str, int] = {}  # key -> generation
        self.dead_is_complete = False
        self.pages = 0
        self.missed = 0
        """Keys of the list that others had started: once they are more than its pages, it is cheaper to list again."""
        self._listed_us: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._awaited = 0  # how many wait for the listing under way
        self._changed: dict[str, _Version] = {}  # what became of keys through ourselves since the list was begun
        self._since: dict[str, tuple[_Version, Stored | None, Entry | None]] | None = None  # … since the next one was

    # in progress

    async def look(self) -> Running:
        """List everything in progress, with leases, slots and settings."""
        running, token = Running(), ""
        while True:
            page = await self._objects.page(self._place.running, token)
            running.add(self._place, map(self._objects.stored, page.items))
            token = page.next_token
            if not token:
                break
        self.running = running
        self.kept.unset_aside(running.keys, self._clock.wall_us())
        return running

    # queued

    @property
    def known(self) -> bool:
        """Whether the queued keys were ever listed, not too long ago."""
        return self._listed_us is not None

    @property
    def under_way(self) -> bool:
        """Whether the queued keys are being listed."""
        return self._task is not None and not self._task.done()

    @property
    def is_fresh(self) -> bool:
        """Whether the queued keys were listed just now, so that what is there was not started by others long ago."""
        return self.known and self._age_us() < _FRESH_US

    async def fill(self, wanted: int) -> None:
        """See to it that there are `wanted` keys to start, as far as that is to be had soon."""
        self.kept.promote(self._clock.wall_us())
        is_dry = self.kept.ready < wanted and self._age_us() >= self._pace_us()
        is_old = self._age_us() >= self._refresh_us or self.missed > self.pages
        if not self.known or (self.pages <= _FREE_PAGES and (is_dry or is_old)):
            if self.under_way:  # it may have passed by what was stored before we were asked
                await self._wait_for(self._start(), _PATIENCE_SECONDS)
            await self._wait_for(self._start(), _PATIENCE_SECONDS)
        elif is_dry:
            await self._wait_for(self._start(), 0 if self.kept.ready else _PATIENCE_SECONDS)
        elif is_old:
            self._start()
        self.kept.promote(self._clock.wall_us())

    async def refresh(self) -> None:
        """List now what is queued and what is dead-lettered, however long it takes.

        Raises:
            StoreError: it could not be listed; what was known before is still there.
        """
        if self.under_way:  # it began before we were asked
            await asyncio.wait((self._start(),))
        await self._wait_for(self._start(), None)

    async def refresh_if_cheap(self) -> None:
        """List again if that is a matter of a few pages, or was never done; else what is known must do."""
        if not self.known or self.pages <= _FREE_PAGES:
            await self.refresh()
        else:
            self.kept.promote(self._clock.wall_us())

    def take(self, ahead: Callable[[str], int] | None = None) -> Candidate | None:
        """Take out the next key that may start, as far as is known, passing over those that others are `ahead` at."""
        while (record := self.kept.pop()) is not None:
            found = unpack(record)
            if self._changed.get(found.key, found.version) != found.version:
                continue
            if found.key in self.running.keys:
                self.kept.aside[found.key] = record
            elif ahead is not None and (others := ahead(found.key)):
                self.kept.pass_over(record, others)
            else:
                return found
        return None

    def set_aside(self, candidate: Candidate) -> None:
        """The key turned out to be in progress elsewhere; it is filed again once that is over."""
        self.kept.aside[candidate.key] = pack(candidate.key, candidate.stored, candidate.entry, listed=False)

    def put_back(self, candidate: Candidate) -> None:
        """File again a key that was taken and not started."""
        now_us = self._clock.wall_us()
        self.kept.add(candidate.key, candidate.stored, candidate.entry, now_us, listed=candidate.listed)

    def letter_of(self, candidate: Candidate) -> int | None:
        """The generation of the key's dead letter; 0 = there is none, None = nobody knows.

        Nobody dead-letters a key whose queued entry lies there unchanged, so the list made after that entry's holds.
        """
        known = self.dead.get(candidate.key)
        return known if known is not None else 0 if candidate.listed and self.dead_is_complete else None

    # what this process does itself

    def queued(self, key: str, stored: Stored, entry: Entry) -> None:
        """We stored the queued entry of a key."""
        self._note(key, stored, entry)

    def unqueued(self, key: str) -> None:
        """We removed the queued entry of a key, or saw that it is gone."""
        self._note(key, None, None)

    def started(self, key: str, stored: Stored) -> None:
        """We took a key into progress."""
        self._note(key, None, None)
        self.running.keys[key] = Seen.of(stored)

    def settled(self, key: str) -> None:
        """A key of ours is no longer in progress."""
        if self.running.keys.pop(key, None) is not None:
            self.kept.unset_aside(self.running.keys, self._clock.wall_us())

    def close(self) -> None:
        """Stop listing in the background."""
        if self._task is not None:
            self._task.cancel()

    def _note(self, key: str, stored: Stored | None, entry: Entry | None) -> None:
        if self._listed_us is None and self._since is None:
            return
        if self._since is None and self._age_us() > self._refresh_us + _FORGET_US:
            self._listed_us, self.kept, self._changed = None, Kept(self._keep), {}
            return
        version = (stored.generation, stored.metageneration) if stored is not None else None
        self._changed[key] = version
        if self._since is not None:
            self._since[key] = (version, stored, entry)
        if stored is not None and entry is not None:
            self._file(self.kept, key, stored, entry)

    def _file(self, kept: Kept, key: str, stored: Stored, entry: Entry) -> None:
        now_us = self._clock.wall_us()
        if key in self.running.keys:
            kept.add_page([(key, stored, entry)], now_us, self.running.keys)
        else:
            kept.add(key, stored, entry, now_us, listed=False)

    # listing

    def _age_us(self) -> int:
        return self._clock.steady_us() - (self._listed_us or 0)

    def _pace_us(self) -> int:
        """How long to leave a list alone that ran dry: a backlog that waits for its time must not be listed all day."""
        return min(max(self.pages - _FREE_PAGES, 0) * _US_A_PAGE, self._refresh_us)

    def _start(self) -> asyncio.Task[None]:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._list(), name="gcs-listing")
            self._task.add_done_callback(_told)
        return self._task

    async def _wait_for(self, task: asyncio.Task[None], seconds: float | None) -> None:
        self._awaited += 1
        try:
            await asyncio.wait((task,), timeout=seconds)
        finally:
            self._awaited -= 1
        if task.done() and not task.cancelled():
            task.result()

    async def _list(self) -> None:
        began_us, self._since = self._clock.steady_us(), {}
        kept, pages = Kept(self._keep), 0
        try:
            async for items in self._pages(self._place.queued):
                for start in range(0, len(items), _SLICE):
                    rows = map(self._entry, items[start : start + _SLICE])
                    kept.add_page(rows, self._clock.wall_us(), self.running.keys)
                    await self._give_way()
                pages += 1
            dead, is_complete, dead_pages = await self._list_dead()
        except BaseException:
            self._since = None
            raise
        self.kept, self.dead, self.dead_is_complete = kept, dead, is_complete
        self.pages, self.missed, self._listed_us = pages + dead_pages, 0, began_us
        self._take_over(self._since)
        self._metrics.enumerated(self._clock.steady_us() - began_us)
        if kept.forgotten:
            log.info("%d queued keys are more than are kept in memory (keep=%d)", kept.forgotten, self._keep)
        self._refreshed()

    async def _give_way(self) -> None:
        """Let starts and settles go first: a listing that nobody waits for has until the next one."""
        await asyncio.sleep(0 if self._awaited else _REST_SECONDS)

    def _take_over(self, since: dict[str, tuple[_Version, Stored | None, Entry | None]]) -> None:
        """Bring a new list up to date with what we did while it was made."""
        self._since = None
        self._changed = {key: version for key, (version, _, _) in since.items()}
        for key, (_, stored, entry) in since.items():
            if stored is not None and entry is not None:
                self._file(self.kept, key, stored, entry)

    async def _list_dead(self) -> tuple[dict[str, int], bool, int]:
        dead: dict[str, int] = {}
        pages, token, skip = 0, "", len(self._place.dead)
        while pages < _DEAD_PAGES:
            page = await self._objects.page(self._place.dead, token, names_only=True)
            dead.update((item["name"][skip:], int(item["generation"])) for item in page.items)
            pages, token = pages + 1, page.next_token
            if not token:
                break
        return dead, not token, pages

    async def _pages(self, prefix: str) -> AsyncIterator[list[dict[str, Any]]]:
        token = ""
        while True:
            page = await self._objects.page(prefix, token)
            yield page.items
            token = page.next_token
            if not token:
                return

    def _entry(self, item: dict[str, Any]) -> tuple[str, Stored, Entry]:
        stored = self._objects.stored(item)
        key = stored.name[len(self._place.queued) :]
        return key, stored, entry_of(stored.metadata, key, stored.created_us, stored.size)

    async def dead_letters(self) -> AsyncIterator[list[tuple[str, Stored]]]:
        """Every dead letter, page by page."""
        async for items in self._pages(self._place.dead):
            yield [(stored.name[len(self._place.dead) :], stored) for stored in map(self._objects.stored, items)]


def _told(task: asyncio.Task[None]) -> None:
    """Whoever waits for a listing gets its error; one in the background that fails is not the end of the world."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, StoreError):
        log.warning("listing the queued keys failed, the list made before is still used: %s", error)
    elif error is not None:
        log.error("listing the queued keys failed", exc_info=error)
