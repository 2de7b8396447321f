"""Stage 3: the pages of a bucket, of which a listing goes by name, and not in the order in which keys start or failed.

What waits is paged from the kept listing. The first page of eligible keys lists anew, as does every page where that is
a matter of a few requests; else what is known must do. What lies beyond `keep` is not seen. Dead letters are not kept:
each page of them lists them all, a request for every thousand, and reads only the payloads that it shows.
"""

from __future__ import annotations

from workqueue.backends.gcs.api.objects import Stored
from workqueue.backends.gcs.bucket import Bucket
from workqueue.backends.gcs.handles import Handles
from workqueue.backends.gcs.listing.aside import Odd
from workqueue.backends.gcs.listing.packed import Candidate, record_behind, unpack
from workqueue.backends.gcs.metadata import letter_of
from workqueue.paging import First, Page, PageRequest, Place, Position, first_behind, page_from

__all__ = ["Pages"]


class Pages:
    """The pages of one bucket; `handles` makes the handles."""

    def __init__(self, bucket: Bucket, handles: Handles) -> None:
        self._bucket = bucket
        self._handles = handles

    async def page(self, request: PageRequest) -> Page:
        """See `PagedQueue.page`."""
        listing = self._bucket.listing
        if request.place is Place.DEAD_LETTERED:
            return await self._letters(request)
        await listing.look()
        if request.place is Place.IN_PROGRESS:
            names = first_behind(request, listing.running.keys, _itself, str)
            shown = [self._handles.observed(key, listing.running.keys[key]) for key in names[: request.limit]]
            return page_from(request, names, shown, _itself)
        if listing.is_known and (request.cursor or request.place is not Place.QUEUED):
            await listing.refresh_if_cheap()
            await listing.fill(0)  # begins a listing in the background where the one that is kept is old
        else:
            await listing.refresh()
        return await self._listed(request)

    async def _listed(self, request: PageRequest) -> Page:
        """What the listing of queued keys shows."""
        listing = self._bucket.listing
        if request.place is Place.UNREADABLE:
            found = first_behind(request, listing.aside.all(), _odd_position, str, str)
            keys = [self._handles.unreadable(odd) for odd in found[: request.limit]]
            return page_from(request, found, keys, _odd_position)
        if request.place is Place.TWINS:
            names = first_behind(request, listing.kept.twins, _itself, str)
            twins = [unpack(listing.kept.twins[key]) for key in names[: request.limit]]
            return page_from(request, names, await self._handles.queued(twins), _itself)
        position = _due_position if request.place is Place.DELAYED else _start_position
        candidates = self._waiting(request)
        return page_from(request, candidates, await self._handles.queued(candidates[: request.limit]), position)

    def _waiting(self, request: PageRequest) -> list[Candidate]:
        """Eligible or delayed keys of the page, and one more if there is one."""
        listing, is_delayed = self._bucket.listing, request.place is Place.DELAYED
        listing.kept.promote(self._bucket.clock.wall_us())
        position = request.position(*(int,) * (3 if is_delayed else 2), str)
        due_us = position[0] if position and is_delayed else 0
        after = record_behind(*position[-3:]) if position else b""
        found: list[Candidate] = []
        records = listing.kept.later(due_us, after) if is_delayed else listing.kept.behind(after)
        for record in records:
            candidate = unpack(record)
            if listing.may_start(candidate):
                found.append(candidate)
            if len(found) > request.limit:
                break
        return found

    async def _letters(self, request: PageRequest) -> Page:
        after = request.position(int, str)
        first = First[tuple[str, Stored]](request.limit + 1, _failed_position)
        async for page in self._bucket.listing.dead_letters():
            first.add(letter for letter in page if after is None or _failed_position(letter) > after)
        found = first.sorted()
        return page_from(request, found, await self._handles.dead(found[: request.limit]), _failed_position)


# Where something stands. By these, or by the records made of them, it is sorted.


def _itself(key: str) -> Position:
    return (key,)


def _odd_position(odd: Odd) -> Position:
    return odd.key, str(odd.where)


def _start_position(candidate: Candidate) -> Position:
    return candidate.entry.priority, candidate.entry.queued_us, candidate.key


def _due_position(candidate: Candidate) -> Position:
    return candidate.entry.not_before_us, *_start_position(candidate)


def _failed_position(letter: tuple[str, Stored]) -> Position:
    key, stored = letter
    return -letter_of(stored.metadata, key, stored.created_us, stored.size).failed_us, key
