"""Stage 3: the pages of a SQLite queue, each from where the one before ended, along the index of its place.

So a page reads no more rows than it has, wherever it stands. What came due and was not promoted yet is merged in, and
is few: the backend promotes a backlog of those before, unless it may only look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from workqueue.backends.sqlite import rows as rows
from workqueue.backends.sqlite.parameters import bound
from workqueue.backends.sqlite.schema import DELAYED, READY, TWIN
from workqueue.handles import Dead, Observed, Queued
from workqueue.paging import Page, PageRequest, Place, Position, page_from

__all__ = ["Lists", "page_of"]

_STORED = (int, float, str)  # a hand may have written text or a blob for a number; it is sorted as what it is

_READY_ROWS = f"SELECT * FROM queued INDEXED BY queued_ready WHERE queue = :queue AND place = {READY}"
_ORDER = "ORDER BY priority DESC, queued_us, key LIMIT :limit"
_READY_FIRST = f"SELECT json_group_array({rows.QUEUED}) FROM ({_READY_ROWS} {_ORDER})"
# What is behind a key: three stretches of the index, each of which SQLite finds the beginning of. With one condition it
# would step over all keys of the same microsecond, as those of one `queue_many` are.
_READY_TIED = f"""
SELECT json_group_array({rows.QUEUED}) FROM ({_READY_ROWS} AND priority = :priority AND queued_us = :queued_us
AND key > CAST(:key AS TEXT) ORDER BY key LIMIT :limit)
"""
_READY_SAME = f"""
SELECT json_group_array({rows.QUEUED}) FROM ({_READY_ROWS} AND priority = :priority AND queued_us > :queued_us
ORDER BY queued_us, key LIMIT :limit)
"""
_READY_LOWER = f"SELECT json_group_array({rows.QUEUED}) FROM ({_READY_ROWS} AND priority < :priority {_ORDER})"
_DUE_ROWS = f"""
SELECT * FROM queued INDEXED BY queued_due WHERE queue = :queue AND place = {DELAYED} AND not_before_us <= :now_us
"""
_DUE_FIRST = f"SELECT json_group_array({rows.QUEUED}) FROM ({_DUE_ROWS} {_ORDER})"
_DUE_BEHIND = f"""
SELECT json_group_array({rows.QUEUED}) FROM ({_DUE_ROWS}
AND (priority < :priority OR (priority = :priority AND (queued_us, key) > (:queued_us, CAST(:key AS TEXT)))) {_ORDER})
"""
_STANDS = "SELECT priority, queued_us FROM queued WHERE id = ?"
# What stands in the index is the moment and then the id: nothing has to be sorted, however many wait for one moment.
_LATER_ROWS = f"SELECT * FROM queued INDEXED BY queued_due WHERE queue = :queue AND place = {DELAYED}"
_LATER_TIED = f"""
SELECT json_group_array({rows.QUEUED}) FROM ({_LATER_ROWS} AND not_before_us = :not_before_us AND id > :id
ORDER BY id LIMIT :limit)
"""
_LATER = f"""
SELECT json_group_array({rows.QUEUED}) FROM ({_LATER_ROWS} AND not_before_us > :not_before_us
ORDER BY not_before_us, id LIMIT :limit)
"""
_TWINS = f"""
SELECT json_group_array({rows.QUEUED}) FROM (
  SELECT * FROM queued INDEXED BY queued_twin WHERE queue = :queue AND place = {TWIN} AND key > CAST(:key AS TEXT)
  ORDER BY key LIMIT :limit)
"""
_RUNNING = f"""
SELECT json_group_array({rows.RUNNING}) FROM (
  SELECT * FROM in_progress INDEXED BY in_progress_key WHERE queue = :queue AND key > CAST(:key AS TEXT)
  ORDER BY key LIMIT :limit)
"""
# A later letter has a higher id, but for ids that were given up and are given again: hence the time of the first page.
_DEAD = f"""
SELECT json_group_array({rows.DEAD}) FROM (
  SELECT * FROM dead INDEXED BY dead_page WHERE queue = :queue AND id < :before
  AND NOT (failed_us > :until_us AND failed_us <= :now_us) ORDER BY id DESC LIMIT :limit)
"""
_NO_ID = 2**63 - 1


class Lists(Protocol):
    """What pages are made from: handles of the rows that a statement lists, as of one commit."""

    def list_queued(self, sql: str, **bounds: Any) -> list[Queued]: ...
    def list_running(self, sql: str, **bounds: Any) -> list[Observed]: ...
    def list_dead(self, sql: str, **bounds: Any) -> list[Dead]: ...
    def row_of(self, sql: str, row_id: int) -> Sequence[Any]: ...


def page_of(lists: Lists, request: PageRequest, now_us: int) -> Page:
    """The page that `request` asks for, at the wall time `now_us`."""
    match request.place:
        case Place.QUEUED:
            return _eligible(lists, request, now_us)
        case Place.DELAYED:
            not_before_us, row_id = max(request.position(int, int) or (0, 0), (now_us, _NO_ID))
            bounds = {"not_before_us": not_before_us, "id": row_id}
            delayed = _stretch(lists, (_LATER_TIED, _LATER), request.limit + 1, **bounds)
            return _page(request, delayed, lambda key: (key.entry.not_before_us, key.version[0]))
        case Place.TWINS:
            return _page(request, lists.list_queued(_TWINS, **_by_name(request)), lambda key: (key.key,))
        case Place.IN_PROGRESS:
            return _page(request, lists.list_running(_RUNNING, **_by_name(request)), lambda key: (key.key,))
        case Place.DEAD_LETTERED:
            until_us, before = request.position(int, int) or (now_us, _NO_ID)
            bounds = {"before": before, "until_us": until_us, "now_us": now_us, "limit": request.limit + 1}
            return _page(request, lists.list_dead(_DEAD, **bounds), lambda letter: (until_us, letter.version[0]))
        case Place.UNREADABLE:  # whatever stands in a row can be read
            request.position(str)
            return Page([])


def _stretch(lists: Lists, stretches: Sequence[str], limit: int, **bounds: Any) -> list[Queued]:
    """The first `limit` keys of one stretch of the index after the other."""
    keys: list[Queued] = []
    for sql in stretches:
        if len(keys) < limit:
            keys += lists.list_queued(sql, **bounds, limit=limit - len(keys))
    return keys


def _by_name(request: PageRequest) -> dict[str, Any]:
    position = request.position(str)
    return {"key": bound(position[0]) if position else "", "limit": request.limit + 1}


def _page(request: PageRequest, keys: Sequence[Any], position: Callable[[Any], Position]) -> Page:
    return page_from(request, keys, keys, position)


def _eligible(lists: Lists, request: PageRequest, now_us: int) -> Page:
    position, limit = request.position(_STORED, _STORED, str), request.limit + 1
    if position is None:
        keys = lists.list_queued(_READY_FIRST, limit=limit)
        due = lists.list_queued(_DUE_FIRST, limit=limit, now_us=now_us)
    else:
        priority, queued_us, key = position
        behind = {"priority": _received(priority, ""), "queued_us": _received(queued_us, b""), "key": bound(key)}
        keys = _stretch(lists, (_READY_TIED, _READY_SAME, _READY_LOWER), limit, **behind)
        due = lists.list_queued(_DUE_BEHIND, **behind, limit=limit, now_us=now_us)
    if due:
        keys = sorted([*keys, *due], key=lambda each: (-each.priority, each.entry.queued_us, each.key))[:limit]
    return _page(request, keys, lambda last: (*map(_sent, lists.row_of(_STANDS, last.version[0])), last.key))


# What stands where a number belongs, in a cursor: text begins with a t, a blob with a b. Text that is no UTF-8 cannot
# be bound; what is `behind` it in the order stands in, so that no page begins where one before did.


def _sent(value: Any) -> float | str:
    if isinstance(value, bytes):
        return f"b{value.hex()}"
    number: float = value
    return f"t{value}" if isinstance(value, str) else number


def _received(value: float | str, behind: str | bytes) -> float | str | bytes:
    if not isinstance(value, str):
        return value
    if value.startswith("b"):
        with suppress(ValueError):
            return bytes.fromhex(value[1:])
    try:
        value.encode()
    except UnicodeEncodeError:
        return behind
    return value[1:]
