"""Pages that only look: a queue as a whole, the keys of one place, one key wherever it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from workqueue.errors import KeyNotFoundError
from workqueue.fallbacks import FullQueue
from workqueue.interface import KeyState, KeyStatus
from workqueue.optional import Found
from workqueue.paging import MAX_LIMIT, Place
from workqueue.searching import search, since
from workqueue.web.console.charts import HEIGHT, WIDTH, charts_of
from workqueue.web.console.filters import FIELDS, filter_of, place_of
from workqueue.web.console.links import address
from workqueue.web.console.payloads import ShownPayload, shown_payload
from workqueue.web.console.verbs import Verb, verbs_at
from workqueue.web.console.visit import Visit

__all__ = ["KeyAt", "first", "key", "keys", "overview"]

_PAGE = 100
_BUDGET = 10_000
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


async def first(visit: Visit) -> Response:
    """The first queue, for who has named none."""
    return visit.back(address("q", next(iter(visit.queues))))


async def overview(visit: Visit) -> Response:
    """A queue as it is now, and its last hour."""
    watched = visit.watched
    counts, stored = await watched.queue.counts(), await watched.queue.configuration()
    samples = watched.history.samples
    return visit.page(
        "overview.html",
        watched=watched,
        counts=counts,
        stored=stored,
        latest=samples[-1] if samples else None,
        charts=charts_of(watched.history, datetime.now(UTC)),
        width=WIDTH,
        height=HEIGHT,
    )


async def keys(visit: Visit) -> Response:
    """The keys of one place, a page at a time; what matches a filter is looked for among so many and no more."""
    watched, place = visit.watched, place_of(visit.request.path_params["place"])
    wanted = filter_of(visit.asked)
    limit = min(max(int(visit.asked("limit")), 1), MAX_LIMIT) if visit.asked("limit").isdecimal() else _PAGE
    found = await search(watched.queue, place, wanted, limit=limit, cursor=visit.asked("cursor"), budget=_BUDGET)
    given = {name: visit.asked(name) for name in FIELDS}
    here = address("q", watched.name, "keys", place, **given, limit=visit.asked("limit"), cursor=visit.asked("cursor"))
    more = address("q", watched.name, "keys", place, **given, limit=visit.asked("limit"), cursor=found.cursor)
    return visit.page(
        "keys.html",
        watched=watched,
        counts=await watched.queue.counts(),
        place=place,
        places=list(Place),
        given=given,
        is_narrowed=wanted.is_given(),
        rows=[(handle, since(handle)) for handle in found.keys],
        found=found,
        here=here,
        more=more if found.cursor else "",
        verbs=verbs_at(place),
    )


@dataclass(frozen=True, slots=True)
class KeyAt:
    """A key at one of its places: what can be done there, and since when it is there."""

    place: Place
    handle: Any
    since: datetime | None
    verbs: list[Verb]
    payload: ShownPayload | None
    meta: Mapping[str, str]


async def key(visit: Visit) -> Response:
    """One key, in every place where it is."""
    watched, name = visit.watched, visit.asked("key")
    found = await watched.queue.find(name)
    kept = await _kept(watched.queue, name, found)
    places = [_at(place, handle, kept) for place, handle in _places(found) if handle is not None]
    return visit.page(
        "key.html",
        200 if places else 404,
        watched=watched,
        key=name,
        places=places,
        here=address("q", watched.name, "key", key=name),
        trace_id=_trace_id(places),
    )


def _places(found: Found) -> list[tuple[Place, Any]]:
    waiting = Place.QUEUED
    if found.queued is not None and found.in_progress is not None:
        waiting = Place.TWINS
    elif found.queued is not None and found.queued.not_before and found.queued.not_before > datetime.now(UTC):
        waiting = Place.DELAYED
    return [
        (Place.IN_PROGRESS, found.in_progress),
        (waiting, found.queued),
        (Place.DEAD_LETTERED, found.dead_letter),
        (Place.UNREADABLE, found.unreadable),
    ]


async def _kept(queue: FullQueue, name: str, found: Found) -> KeyState | None:
    """Payload and meta of a key in progress, which its handle does not have; None if it is not there any more."""
    if found.in_progress is None:
        return None
    try:
        state = await queue.get(name)
    except KeyNotFoundError:
        return None
    return state if state.status is KeyStatus.IN_PROGRESS else None


def _at(place: Place, handle: Any, kept: KeyState | None) -> KeyAt:
    source = kept if place is Place.IN_PROGRESS else handle
    payload, meta = getattr(source, "payload", None), getattr(source, "meta", {})
    shown = None if payload is None else shown_payload(payload)
    return KeyAt(place, handle, since(handle), verbs_at(place), shown, meta)


def _trace_id(places: list[KeyAt]) -> str:
    """The trace that a key belongs to (W3C Trace Context), of the first place whose meta says so."""
    for each in places:
        found = _TRACEPARENT.fullmatch(each.meta.get("traceparent", ""))
        if found:
            return found[1]
    return ""
