"""Stage 3: what is known of a bucket: a fresh look at what is in progress, and a kept listing of what is queued.

Listing is what a bucket charges most for, in money and in time. So a round looks at `in-progress` only. Queued keys are
listed every `refresh`, or when the kept listing runs dry. In between the listing is kept up to date with what this
process does itself. A listing that is wrong about a key costs a lost start, no more: every start is pinned to the
version that was listed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from workqueue.backends.gcs.address import GCSSettings, Place
from workqueue.backends.gcs.api.objects import Objects, Stored
from workqueue.backends.gcs.listing.aside import Aside, Odd, Sieve
from workqueue.backends.gcs.listing.kept import Kept
from workqueue.backends.gcs.listing.lister import Letters, Listed, Lister
from workqueue.backends.gcs.listing.packed import Candidate, pack, unpack
from workqueue.backends.gcs.listing.running import Running, Seen
from workqueue.clock import Clock, duration_us
from workqueue.interface import KeyStatus
from workqueue.metrics import QueueMetrics

__all__ = ["Listing"]

_FREE_PAGES = 10  # a listing of no more pages than these may be repeated at will
_US_A_PAGE = 100_000  # one that is longer, at most at this pace, so that it does not become all that we do
_FRESH_US = 1_000_000
_PATIENCE_SECONDS = 3.0  # a lease step waits no longer for a listing: who probes our health would take us for dead
_FORGET_US = 600_000_000  # beside the refresh period; a process that only enqueues must not keep what it never reads


class Listing:
    """What is known of one bucket.

    Args:
        objects: the bucket.
        place: the names in it.
        settings: how old and how long the kept listing may become.
        clock: judges not-before and the listing's age.
        metrics: count how long listings take.
        refreshed: called when a new listing of the queued keys is there.
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
        self.aside = Aside(place)
        """What cannot be processed."""
        self._lister = Lister(objects, place, settings.keep, clock, self)
        self._listed = Listed(Kept(self._keep))
        self.running = Running()
        """What was in progress at the last look, with what this process started and settled since."""
        self.missed = 0
        """Keys of the listing that others had started. Once they are more than its pages, to list again is cheaper."""

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
        sieve = Sieve(self.aside, KeyStatus.IN_PROGRESS)
        for key in [key for key, seen in running.keys.items() if not sieve.passes(key, seen.stored)]:
            running.stuck[key] = running.keys.pop(key)
        sieve.end()
        self.running = running
        self.kept.end_twins(running.taken, self._clock.wall_us())
        return running

    # queued

    @property
    def kept(self) -> Kept:
        """The queued keys, in the order in which they start."""
        return self._listed.kept

    @property
    def letters(self) -> Letters:
        """The dead letters."""
        return self._listed.letters

    @property
    def is_known(self) -> bool:
        """Whether the queued keys were ever listed, not too long ago."""
        return self._listed.began_us is not None

    @property
    def is_fresh(self) -> bool:
        """Whether the queued keys were listed just now, so that what is there was not started by others long ago."""
        return self.is_known and self._age_us() < _FRESH_US

    @property
    def under_way(self) -> bool:
        """Whether the queued keys are being listed."""
        return self._lister.under_way

    async def fill(self, wanted: int) -> None:
        """See to it that there are `wanted` keys to start, as far as that is to be had soon.

        Raises:
            StoreError: they could not be listed.
        """
        self.kept.promote(self._clock.wall_us())
        is_dry = self.kept.ready < wanted and self._age_us() >= self._pace_us()
        is_old = self._age_us() >= self._refresh_us or self.missed > self._listed.pages
        if not self.is_known or (self._is_cheap and (is_dry or is_old)):
            await self._lister.wait_for_new(_PATIENCE_SECONDS)
        elif is_dry:
            await self._lister.wait(0 if self.kept.ready else _PATIENCE_SECONDS)
        elif is_old:
            self._lister.begin()
        self.kept.promote(self._clock.wall_us())

    async def refresh(self) -> None:
        """List now what is queued and what is dead-lettered, however long it takes.

        Raises:
            StoreError: it could not be listed; what was known before is still there.
        """
        await self._lister.wait_for_new(None)

    async def refresh_if_cheap(self) -> None:
        """List again if that is a matter of a few pages, or was never done; else what is known must do.

        Raises:
            StoreError: it could not be listed.
        """
        if not self.is_known or self._is_cheap:
            await self.refresh()
        else:
            self.kept.promote(self._clock.wall_us())

    def take(self, ahead: Callable[[str], int] | None = None) -> Candidate | None:
        """Take out the next key that may start, as far as is known.

        Args:
            ahead: how many dispatchers take a key before this one; such keys are left to them.
        """
        while (record := self.kept.pop()) is not None:
            candidate = unpack(record)
            if self._listed.own.outdates(candidate) or self._is_aside(candidate):
                continue
            if candidate.key in self.running.taken:
                self.kept.add_twin(candidate)
            elif ahead is not None and (others := ahead(candidate.key)):
                self.kept.leave(record, others)
            else:
                return candidate
        return None

    def may_start(self, candidate: Candidate) -> bool:
        """Whether a key of the listing is still what was listed, as far as is known, and no twin by now."""
        is_known_otherwise = self._listed.own.outdates(candidate) or self._is_aside(candidate)
        return not is_known_otherwise and candidate.key not in self.running.taken

    def _is_aside(self, candidate: Candidate) -> bool:
        return self.aside.odd(KeyStatus.QUEUED, candidate.key, candidate.stored) is not None

    def set_aside(self, where: KeyStatus, key: str, stored: Stored, reason: str) -> None:
        """The store refused to move an object of this version."""
        self.aside.put(Odd(key, where, stored.version, reason))

    def put_back(self, candidate: Candidate) -> None:
        """File again a key that was taken and not started."""
        self.kept.add(candidate, self._clock.wall_us(), {})

    def letter_of(self, candidate: Candidate) -> int | None:
        """The generation of the key's dead letter; 0 = there is none, None = nobody knows.

        Nobody dead-letters a key whose queued entry lies there unchanged, so a listing of that entry has the letter.
        """
        none = 0 if candidate.listed and self.letters.are_all else None
        return self.letters.generations.get(candidate.key, none)

    def dead_letters(self) -> AsyncIterator[list[tuple[str, Stored]]]:
        """Every dead letter, listed anew, page by page."""
        return self._lister.dead_letters()

    # what this process does itself

    def queued(self, candidate: Candidate) -> None:
        """We stored the queued entry of a key."""
        if self._is_kept_up():
            self._note(candidate.key, pack(candidate))
            self.kept.add(candidate, self._clock.wall_us(), self.running.taken)

    def unqueued(self, key: str) -> None:
        """We removed the queued entry of a key, or saw that it is gone."""
        if self._is_kept_up():
            self._note(key, None)

    def started(self, key: str, stored: Stored) -> None:
        """We took a key into progress."""
        self.unqueued(key)
        self.running.keys[key] = Seen.of(stored)

    def settled(self, key: str) -> None:
        """A key of ours is no longer in progress."""
        if self.running.keys.pop(key, None) is not None:
            self.kept.end_twins(self.running.taken, self._clock.wall_us())

    def dead_lettered(self, key: str, generation: int) -> None:
        """We wrote the dead letter of a key."""
        self.letters.generations[key] = generation

    def undead(self, key: str) -> None:
        """We removed the dead letter of a key, or saw that it is gone."""
        self.letters.generations.pop(key, None)

    def close(self) -> None:
        """Stop listing in the background."""
        self._lister.close()

    def _is_kept_up(self) -> bool:
        """Whether there is a listing to keep up to date; one that was not asked for in a long time is forgotten."""
        if self._lister.meanwhile is not None:
            return True
        if self.is_known and self._age_us() > self._refresh_us + _FORGET_US:
            self._listed = Listed(Kept(self._keep), letters=self.letters)
        return self.is_known

    def _note(self, key: str, record: bytes | None) -> None:
        self._listed.own.note(key, record)
        if self._lister.meanwhile is not None:
            self._lister.meanwhile.note(key, record)

    def take_over(self, listed: Listed) -> None:
        """Answer from a new listing from now on."""
        self._listed, self.missed = listed, 0
        self._metrics.enumerated(self._age_us())
        self._refreshed()

    def _age_us(self) -> int:
        return self._clock.steady_us() - (self._listed.began_us or 0)

    @property
    def _is_cheap(self) -> bool:
        return self._listed.pages <= _FREE_PAGES

    def _pace_us(self) -> int:
        """How long to leave a listing alone that ran dry: keys that wait for their time must not be listed all day."""
        return min(max(self._listed.pages - _FREE_PAGES, 0) * _US_A_PAGE, self._refresh_us)
