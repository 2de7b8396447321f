"""Stage 2: the pages of a memory queue.

What is eligible is filed in order. Any other place is looked through for each page, which holds no more than the page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from workqueue.backends.memory.store import Held, MemoryStore
from workqueue.handles import Dead, HandleStore, Observed, Queued
from workqueue.paging import ListedKey, Page, PageRequest, Place, Position, first_behind, page_from
from workqueue.rules import DeadLetter, Entry

__all__ = ["page_of"]

_T = TypeVar("_T")


def page_of(
    store: MemoryStore, handles: HandleStore, observed: Callable[[Held], Observed], request: PageRequest, now_us: int
) -> Page:
    """The page that `request` asks for; `observed` makes a handle of what is in progress."""
    store.promote(now_us)
    match request.place:
        case Place.QUEUED:
            eligible = store.ready.after(_eligible_after(request), request.limit + 1)
            return _page(request, eligible, lambda entry: Queued(handles, entry), _in_order)
        case Place.DELAYED:
            delayed = first_behind(request, store.all_delayed(), _due, int, str)
            return _page(request, delayed, lambda entry: Queued(handles, entry), _due)
        case Place.TWINS:
            twins = (store.queued[key] for key in store.in_progress if key in store.queued)
            return _page(request, first_behind(request, twins, _name, str), lambda entry: Queued(handles, entry), _name)
        case Place.IN_PROGRESS:
            held = first_behind(request, store.in_progress.values(), _held_name, str)
            return _page(request, held, observed, _held_name)
        case Place.DEAD_LETTERED:
            letters = first_behind(request, store.dead.values(), _failed, int, str)
            return _page(request, letters, lambda letter: Dead(handles, letter), _failed)
        case Place.UNREADABLE:
            request.position(str)
            return Page([])


def _page(
    request: PageRequest, found: list[_T], handle: Callable[[_T], ListedKey], position: Callable[[_T], Position]
) -> Page:
    return page_from(request, found, [handle(item) for item in found[: request.limit]], position)


def _eligible_after(request: PageRequest) -> tuple[int, int, str] | None:
    position = request.position(int, int, str)
    return None if position is None else (position[0], position[1], position[2])


# Where something stands: what is smaller comes first.


def _in_order(entry: Entry) -> Position:
    return entry.priority, entry.queued_us, entry.key  # as `ReadyIndex.after` takes it


def _due(entry: Entry) -> Position:
    return entry.not_before_us, entry.key


def _name(entry: Entry) -> Position:
    return (entry.key,)


def _held_name(held: Held) -> Position:
    return (held.entry.key,)


def _failed(letter: DeadLetter) -> Position:
    return -letter.failed_us, letter.entry.key
