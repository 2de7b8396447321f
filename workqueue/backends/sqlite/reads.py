"""Stage 3: looking at a SQLite queue without disturbing it, on a connection and a thread of its own.

In a write-ahead log readers see the last commit and wait for nobody, so listings, counts and health checks answer while
the writer waits for a lock or a full disk, and a long listing holds nobody's lock.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from workqueue.backends.sqlite import rows as rows
from workqueue.backends.sqlite.errors import translated
from workqueue.backends.sqlite.leasing import Standing, standing_of
from workqueue.backends.sqlite.schema import DELAYED, READY, TWIN, QueueFile, connect
from workqueue.clock import Clock
from workqueue.handles import Dead, HandleStore, Observed, Queued
from workqueue.interface import Counts
from workqueue.throttle import Configuration

__all__ = ["Outlook", "Reads", "View"]

_T = TypeVar("_T")

_DUE_COUNTED = 1000
"""Keys that came due but were not promoted yet are counted one by one, up to this many."""

# Each is one statement, or several in one read transaction: they see one commit.

_QUEUED = f"json_array({rows.WAITING}, CAST(stamp AS INTEGER))"
_RUNNING = f"json_array({rows.COMMON}, token, CAST(owner AS TEXT), CAST(expires_us AS INTEGER), CAST(boot AS INTEGER))"
_DEAD = f"json_array({rows.COMMON}, CAST(error AS TEXT), CAST(failed_us AS INTEGER), id, CAST(stamp AS INTEGER))"
_ORDER = "ORDER BY priority DESC, queued_us, key"

_LIST_RUNNING = f"SELECT json_group_array({_RUNNING}) FROM in_progress WHERE queue = ?1"
_LIST_READY = f"""
SELECT json_group_array({_QUEUED}) FROM (
  SELECT * FROM queued INDEXED BY queued_ready WHERE queue = ?1 AND place = {READY} {_ORDER} LIMIT ?2)
"""
# Keys that came due since the last promotion; few, where anybody starts keys at all.
_LIST_DUE = f"""
SELECT json_group_array({_QUEUED}) FROM (
  SELECT * FROM queued INDEXED BY queued_due WHERE queue = ?1 AND place = {DELAYED} AND not_before_us <= ?3
  {_ORDER} LIMIT ?2)
"""
_LIST_DELAYED = f"""
SELECT json_group_array({_QUEUED}) FROM (
  SELECT * FROM queued INDEXED BY queued_due WHERE queue = ?1 AND place = {DELAYED} AND not_before_us > ?3
  ORDER BY not_before_us, key LIMIT ?2)
"""
_LIST_TWINS = (
    f"SELECT json_group_array({_QUEUED}) FROM queued INDEXED BY queued_twin WHERE queue = ?1 AND place = {TWIN}"
)
_LIST_DEAD = f"""
SELECT json_group_array({_DEAD}) FROM (
  SELECT * FROM dead INDEXED BY dead_page WHERE queue = ?1 AND id > ?2 ORDER BY id LIMIT ?3)
"""
_DEAD_PAYLOADS = """
SELECT id, CAST(payload AS BLOB) FROM dead WHERE id IN (SELECT value FROM json_each(CAST(? AS TEXT)))
"""

_FIND = "SELECT {}, CAST(payload AS BLOB) FROM {} WHERE queue = ? AND key = CAST(? AS TEXT)"
_FIND_QUEUED = _FIND.format(_QUEUED, "queued")
_FIND_RUNNING = _FIND.format(_RUNNING, "in_progress")
_FIND_DEAD = _FIND.format(_DEAD, "dead")

# Every subquery is the end of an index, a kept count, or over in_progress, which is never longer than the concurrency.
_COUNT = f"""
SELECT ready, delayed, twins, dead_letters,
  (SELECT count(*) FROM (SELECT 1 FROM queued INDEXED BY queued_due
   WHERE queue = ?1 AND place = {DELAYED} AND not_before_us <= ?2 LIMIT {_DUE_COUNTED})),
  (SELECT max(queued_us, not_before_us) FROM queued INDEXED BY queued_since
   WHERE queue = ?1 AND place = {READY} ORDER BY max(queued_us, not_before_us) LIMIT 1),
  (SELECT not_before_us FROM queued INDEXED BY queued_due
   WHERE queue = ?1 AND place = {DELAYED} AND not_before_us <= ?2 ORDER BY not_before_us LIMIT 1),
  (SELECT attempts FROM queued INDEXED BY queued_attempts
   WHERE queue = ?1 AND attempts > 0 ORDER BY attempts DESC LIMIT 1),
  (SELECT max(attempts) FROM in_progress WHERE queue = ?1),
  (SELECT count(*) FROM in_progress WHERE queue = ?1),
  (SELECT json_group_array(json_array(owner, keys)) FROM
   (SELECT CAST(owner AS TEXT) AS owner, count(*) AS keys FROM in_progress WHERE queue = ?1 GROUP BY 1))
FROM queues WHERE id = ?1
"""
_STANDING = f"""
SELECT concurrency, paused, starts_per_second, saved_starts, saved_at_us,
  (SELECT count(*) FROM in_progress WHERE queue = ?1),
  EXISTS (SELECT 1 FROM in_progress WHERE queue = ?1 AND (boot < ?2 OR boot > ?2)),
  (SELECT min(expires_us) FROM in_progress WHERE queue = ?1 AND boot = ?2),
  EXISTS (SELECT 1 FROM queued INDEXED BY queued_ready WHERE queue = ?1 AND place = {READY}),
  (SELECT min(not_before_us) FROM queued INDEXED BY queued_due WHERE queue = ?1 AND place = {DELAYED})
FROM queues WHERE id = ?1
"""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What `wait` waits for: `change_us` until a lease step may find something to do, unless something is written.

    `room`: a key that becomes eligible could start at once; else only a freed slot or new settings help.
    """

    change_us: int
    room: bool


_NEVER_US = 10**18


class View:
    """What the reader sees: one queue of the file, as of the last commit.

    Args:
        connection: the reader's.
        queue: the id of the queue.
        boot: the boot that this process's leases count on.
        clock: judges not-befores and leases.
        handles: where the verbs of the handles go.
    """

    def __init__(
        self, connection: sqlite3.Connection, queue: int, boot: int, clock: Clock, handles: HandleStore
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._boot = boot
        self._clock = clock
        self._handles = handles

    # handles

    def running(self) -> list[Observed]:
        """Everything in progress."""
        return [self._observed(row) for row in self._list(_LIST_RUNNING)]

    def eligible(self, limit: int) -> list[Queued]:
        """The next `limit` eligible keys, in order."""
        listed = self._list(_LIST_READY, limit)
        due = self._list(_LIST_DUE, limit, self._clock.wall_us())
        handles = self._queued([*listed, *due])
        if due:
            handles.sort(key=lambda queued: (-queued.priority, queued.entry.queued_us, queued.key))
        return handles[:limit]

    def twins(self) -> list[Queued]:
        """The queued entries of keys in progress."""
        return self._queued(self._list(_LIST_TWINS))

    def delayed(self, limit: int) -> list[Queued]:
        """The next `limit` keys to come due, soonest first."""
        return self._queued(self._list(_LIST_DELAYED, limit, self._clock.wall_us()))

    def dead(self, after: int, limit: int) -> list[tuple[int, Dead]]:
        """A page of dead letters, each with the `after` of the one that follows it."""
        listed = self._list(_LIST_DEAD, after, limit)
        payloads = rows.payloads(self._connection, _DEAD_PAYLOADS, _by_id(listed))
        return [(row[9], self._dead(row, payloads.get(row[9]))) for row in listed]

    def find(self, key: str) -> tuple[Queued | None, Observed | None, Dead | None]:
        """The handles of one key in each of its places."""
        queued, running, dead = (self._one(sql, key) for sql in (_FIND_QUEUED, _FIND_RUNNING, _FIND_DEAD))
        return (
            Queued(self._handles, rows.queued_entry_of(*queued), (queued[0][9], queued[0][10])) if queued else None,
            self._observed(*running) if running else None,
            self._dead(*dead) if dead else None,
        )

    def _list(self, sql: str, *parameters: int) -> list[rows.Row]:
        listed: list[rows.Row] = json.loads(rows.one_row(self._connection, sql, (self._queue, *parameters))[0])
        return listed

    def _one(self, sql: str, key: str) -> tuple[rows.Row, bytes | None] | None:
        found = rows.one_row(self._connection, sql, (self._queue, rows.bound(key)))
        return (json.loads(found[0]), found[1]) if found else None

    def _queued(self, listed: Sequence[rows.Row]) -> list[Queued]:
        payloads = rows.payloads(self._connection, rows.QUEUED_PAYLOADS, _by_id(listed))
        return [
            Queued(self._handles, rows.queued_entry_of(row, payloads.get(row[9])), (row[9], row[10])) for row in listed
        ]

    def _observed(self, row: rows.Row, payload: bytes | None = None) -> Observed:
        token, owner, expires_us, boot = row[7:11]
        orphaned = boot != self._boot or expires_us <= self._clock.steady_us()
        return Observed(self._handles, rows.entry_of(row, payload), owner or "", orphaned, (token, expires_us))

    def _dead(self, row: rows.Row, payload: bytes | None) -> Dead:
        return Dead(self._handles, rows.letter_of(row, payload), (row[9], row[10]))

    # gauges and limits

    def counts(self) -> tuple[Counts, bool]:
        """The gauges, and whether more keys came due than were counted."""
        now_us = self._clock.wall_us()
        row = rows.one_row(self._connection, _COUNT, (self._queue, now_us))
        ready, delayed, twins, dead, due, oldest_us, oldest_due_us, attempts, running_attempts, running, owners = row
        since = [us for us in (oldest_us, oldest_due_us) if isinstance(us, int)]
        counts = Counts(
            queued=ready + due,
            not_before=delayed - due,
            twins=twins,
            in_progress=running,
            dead_lettered=dead,
            oldest_queued_seconds=max(now_us - min(since), 0) / 1e6 if since else 0.0,
            max_attempts=max(rows.attempts(attempts), rows.attempts(running_attempts)),
            in_progress_by_owner={owner or "": keys for owner, keys in json.loads(owners)},
        )
        return counts, due >= _DUE_COUNTED

    def configuration(self) -> Configuration:
        """The stored settings."""
        return standing_of(self._standing()).configuration

    def outlook(self, concurrency: int) -> Outlook:
        """When a lease step under `concurrency` may next find something to do."""
        row = self._standing()
        standing = standing_of(row)
        elsewhere, expires_us, ready, due_us = row[6:]
        changes = [0] if elsewhere else []
        if isinstance(expires_us, int):
            changes.append(expires_us - self._clock.steady_us())
        room = standing.configuration.room(concurrency, standing.running) > 0
        if room:
            changes.append(self._eligible_in(standing, bool(ready), due_us))
        return Outlook(max(min(changes, default=_NEVER_US), 0), room)

    def _eligible_in(self, standing: Standing, ready: bool, due_us: Any) -> int:
        now_us = self._clock.wall_us()
        if not ready:
            wait_us = max(due_us - now_us, 0) if isinstance(due_us, int) else _NEVER_US
            if wait_us:
                return wait_us
        rate = standing.configuration.starts_per_second
        return standing.bucket.refilled(rate, now_us).wait_us(rate) if rate is not None else 0

    def _standing(self) -> Sequence[Any]:
        row: Sequence[Any] = rows.one_row(self._connection, _STANDING, (self._queue, self._boot))
        return row


def _by_id(listed: Iterable[rows.Row]) -> list[tuple[int, rows.Row]]:
    return [(row[9], row) for row in listed]


class Reads:
    """The reader's thread and connection.

    Args:
        file: the file; in its write-ahead log a read waits for a lock only while a crash is recovered from.
        view: what a question is asked of, made from the connection once there is one.
    """

    def __init__(self, file: QueueFile, view: Callable[[sqlite3.Connection], View]) -> None:
        self._file = file
        self._make_view = view
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="workqueue-sqlite-reads")
        self._connection: sqlite3.Connection | None = None

    async def look(self, question: Callable[[View], _T]) -> _T:
        """The answer to `question`; what it asks is seen as of one commit.

        Raises:
            StoreError: as SQLite says.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._look, question)

    async def close(self) -> None:
        """Let the questions under way be answered, then close the connection."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._disconnect)
        self._pool.shutdown(wait=False)

    def _look(self, question: Callable[[View], _T]) -> _T:
        try:
            connection = self._connected()
            connection.execute("BEGIN")
            try:
                return question(self._view)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translated(error, self._file.path) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self._file)
            self._connection.execute("PRAGMA query_only = ON")
            self._view = self._make_view(self._connection)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
