"""Pages over the three verbs, for backends that have no index to page by: see `fallbacks`.

A page costs a listing of all that stands before it. A queue of a million keys wants a backend that has `page` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from workqueue.clock import to_us
from workqueue.interface import QueuedKey, Snapshot
from workqueue.paging import First, ListedKey, Page, PageRequest, Place, Position, page_from

__all__ = ["Listable", "scan_page"]

_FIRST, _GROWTH = 1000, 4
"""How many keys are listed at first, and how many times as many if the page stands further back."""


class Listable(Protocol):
    """What is scanned."""

    async def enumerate(self, limit: int = 100) -> Snapshot:
        """See `WorkQueue.enumerate`."""

    async def delayed(self, limit: int = 100) -> Sequence[QueuedKey]:
        """See `SearchableQueue.delayed`."""


# Where a key stands: what is smaller comes first.
_POSITIONS: dict[Place, tuple[Callable[[Any], Position], tuple[type, ...]]] = {
    Place.IN_PROGRESS: (lambda key: (key.key,), (str,)),
    Place.QUEUED: (lambda key: (-key.priority, to_us(key.queued_time), key.key), (int, int, str)),
    Place.TWINS: (lambda key: (key.key,), (str,)),
    Place.DELAYED: (lambda key: (to_us(key.not_before), key.key), (int, str)),
    Place.DEAD_LETTERED: (lambda key: (-to_us(key.failed_time), key.key), (int, str)),
    Place.UNREADABLE: (lambda key: (key.key, str(key.place)), (str, str)),
}


async def scan_page(queue: Listable, request: PageRequest) -> Page:
    """The page of `queue` that `request` asks for, found by listing all before it.

    Raises:
        InvalidOptionsError: the cursor is of no page of this place.
    """
    place_of, kinds = _POSITIONS[request.place]
    after, wanted = request.position(*kinds), First[ListedKey](request.limit + 1, place_of)
    await _look(queue, request.place, lambda key: after is None or place_of(key) > after, wanted, request.limit + 1)
    found = wanted.sorted()
    return page_from(request, found, found, place_of)


async def _look(
    queue: Listable, place: Place, is_after: Callable[[Any], bool], first: First[ListedKey], wanted: int
) -> None:
    """Let `first` know the keys of a place that are `is_after`, of which the first `wanted` are asked for."""
    if place in (Place.QUEUED, Place.DELAYED):
        first.add(await _grown(queue, place, is_after, wanted))
        return
    snapshot = await queue.enumerate(0)
    if place is Place.DEAD_LETTERED:
        async for letter in snapshot.dead_letters:
            if is_after(letter):
                first.add([letter])
        return
    listed: dict[Place, Iterable[ListedKey]] = {
        Place.IN_PROGRESS: snapshot.in_progress,
        Place.TWINS: snapshot.twins,
        Place.UNREADABLE: snapshot.unreadable,
    }
    first.add(filter(is_after, listed[place]))


async def _grown(
    queue: Listable, place: Place, is_after: Callable[[QueuedKey], bool], wanted: int
) -> Sequence[QueuedKey]:
    """Waiting keys of a place, from a listing that is long enough to have `wanted` of them, if there are as many."""
    limit = _FIRST
    while True:
        listed = (await queue.enumerate(limit)).queued if place is Place.QUEUED else await queue.delayed(limit)
        found = [key for key in listed if is_after(key)]
        if len(found) >= wanted or len(listed) < limit:
            return found
        limit *= _GROWTH
