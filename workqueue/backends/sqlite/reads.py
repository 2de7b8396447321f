"""Stage 3: looking at a SQLite queue without disturbing it, on a connection and a thread of its own.

In a write-ahead log readers see the last commit and wait for nobody, so listings, counts and health checks answer while
the writer waits for a lock or a full disk, and a long listing holds nobody's lock.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from workqueue.backends.sqlite import rows as rows
from workqueue.backends.sqlite.errors import translated
from workqueue.backends.sqlite.file import QueueFile
from workqueue.backends.sqlite.leasing import SETTINGS, Standing, standing_of
from workqueue.backends.sqlite.looking import connect_to_look
from workqueue.backends.sqlite.opening import connect
from workqueue.backends.sqlite.parameters import bound
from workqueue.backends.sqlite.same_file import SameFile
from workqueue.backends.sqlite.schema import DELAYED, READY, TWIN
from workqueue.clock import LATEST_US, Clock
from workqueue.handles import Dead, HandleStore, LeaseTimesSeen, Observed, Queued
from workqueue.optional import Counts
from workqueue.throttle import Configuration

__all__ = ["Outlook", "Reads", "View"]

_T = TypeVar("_T")

_DUE_COUNTED = 1000
"""Keys that came due but were not promoted yet are counted one by one, up to this many."""

# Each is one statement, or several in one read transaction: they see one commit.

_ORDER = "ORDER BY priority DESC, queued_us, key"

_LIST_RUNNING = f"SELECT json_group_array({rows.RUNNING}) FROM in_progress WHERE queue = :queue"
_LIST_READY = f"""
SELECT json_group_array({rows.QUEUED}) FROM (
  SELECT * FROM queued INDEXED BY queued_ready WHERE queue = :queue AND place = {READY} {_ORDER} LIMIT :limit)
"""
# Keys that came due since the last promotion; few, where anybody starts keys at all.
_LIST_DUE = f"""
SELECT json_group_array({rows.QUEUED}) FROM (
  SELECT * FROM queued INDEXED BY queued_due WHERE queue = :queue AND place = {DELAYED} AND not_before_us <= :now_us
  {_ORDER} LIMIT :limit)
"""
_LIST_DELAYED = f"""
SELECT json_group_array({rows.QUEUED}) FROM (
  SELECT * FROM queued INDEXED BY queued_due WHERE queue = :queue AND place = {DELAYED} AND not_before_us > :now_us
  ORDER BY not_before_us, key LIMIT :limit)
"""
_LIST_TWINS = (
    f"SELECT json_group_array({rows.QUEUED}) FROM queued INDEXED BY queued_twin WHERE queue = :queue AND place = {TWIN}"
)
_LIST_DEAD = f"""
SELECT json_group_array({rows.DEAD}) FROM (
  SELECT * FROM dead INDEXED BY dead_page WHERE queue = :queue AND id > :after
  AND NOT (failed_us > :until_us AND failed_us <= :now_us) ORDER BY id LIMIT :limit)
"""

_FIND = (
    "SELECT json_group_array({}) AS found, max(CAST(payload AS BLOB)) AS payload"
    " FROM {} WHERE queue = ? AND key = CAST(? AS TEXT)"
)
_FIND_QUEUED = _FIND.format(rows.QUEUED, "queued")
_FIND_RUNNING = _FIND.format(rows.RUNNING, "in_progress")
_FIND_DEAD = _FIND.format(rows.DEAD, "dead")

# Every subquery is the end of an index, a kept count, or over in_progress, which is never longer than the concurrency.
_COUNT = f"""
SELECT ready, delayed, twins, dead_letters,
  (SELECT count(*) FROM (SELECT 1 FROM queued INDEXED BY queued_due
   WHERE queue = :queue AND place = {DELAYED} AND not_before_us <= :now_us LIMIT :most_due)) AS due,
  (SELECT max(queued_us, not_before_us) FROM queued INDEXED BY queued_since
   WHERE queue = :queue AND place = {READY} ORDER BY max(queued_us, not_before_us) LIMIT 1) AS oldest_us,
  (SELECT not_before_us FROM queued INDEXED BY queued_due
   WHERE queue = :queue AND place = {DELAYED} AND not_before_us <= :now_us
   ORDER BY not_before_us LIMIT 1) AS oldest_due_us,
  (SELECT attempts FROM queued INDEXED BY queued_attempts
   WHERE queue = :queue AND attempts > 0 ORDER BY attempts DESC LIMIT 1) AS queued_attempts,
  (SELECT max(attempts) FROM in_progress WHERE queue = :queue) AS running_attempts,
  (SELECT count(*) FROM in_progress WHERE queue = :queue) AS running,
  (SELECT json_group_array(json_array(owner, keys)) FROM
   (SELECT CAST(owner AS TEXT) AS owner, count(*) AS keys FROM in_progress
    WHERE queue = :queue GROUP BY 1)) AS owners
FROM queues WHERE id = :queue
"""
_COUNT_DUE = f"""
SELECT count(*) FROM (SELECT 1 FROM queued INDEXED BY queued_due
WHERE queue = :queue AND place = {DELAYED} AND not_before_us <= :now_us LIMIT :most_due)
"""
_STANDING = f"""
SELECT {SETTINGS},
  EXISTS (SELECT 1 FROM in_progress WHERE queue = :queue AND (boot < :boot OR boot > :boot)) AS of_another_boot,
  (SELECT min(expires_us) FROM in_progress WHERE queue = :queue AND boot = :boot) AS expires_us,
  EXISTS (SELECT 1 FROM queued INDEXED BY queued_ready WHERE queue = :queue AND place = {READY}) AS ready,
  (SELECT min(not_before_us) FROM queued INDEXED BY queued_due
   WHERE queue = :queue AND place = {DELAYED}) AS due_us
FROM queues WHERE id = :queue
"""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What `wait` waits for: `change_us` until a lease step may find something to do, unless something is written.

    `room`: a key that becomes eligible could start at once; else only a freed slot or new settings help.
    """

    change_us: int
    room: bool


_NEVER_US = 10**18
_KEPT_COUNTS = ("ready", "delayed", "twins", "dead_letters")
_MOST_KEYS = 2**53


class View:
    """What the reader sees: one queue of the file, as of the last commit.

    Args:
        connection: the reader's.
        queue: the id of the queue.
        boot: the boot that this process's leases count on; None = it is not known, and every lease counts as of it.
        clock: judges not-befores and leases.
        handles: where the verbs of the handles go.
    """

    def __init__(
        self, connection: sqlite3.Connection, queue: int, boot: int | None, clock: Clock, handles: HandleStore
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._boot = boot
        self._clock = clock
        self._handles = handles

    # handles

    def running(self) -> list[Observed]:
        """Everything in progress."""
        return self.list_running(_LIST_RUNNING)

    def eligible(self, limit: int) -> list[Queued]:
        """The next `limit` eligible keys, in order."""
        listed = self._list_queued(_LIST_READY, limit=limit)
        due = self._list_queued(_LIST_DUE, limit=limit, now_us=self._clock.wall_us())
        handles = self._queued([*listed, *due])
        if due:
            handles.sort(key=lambda queued: (-queued.priority, queued.entry.queued_us, queued.key))
        return handles[:limit]

    def twins(self) -> list[Queued]:
        """The queued entries of keys in progress."""
        return self.list_queued(_LIST_TWINS)

    def delayed(self, limit: int) -> list[Queued]:
        """The next `limit` keys to come due, soonest first."""
        return self.list_queued(_LIST_DELAYED, limit=limit, now_us=self._clock.wall_us())

    def dead(self, after: int, limit: int, until_us: int) -> list[tuple[int, Dead]]:
        """A page of dead letters but those from since `until_us`, each with the `after` of the one that follows it.

        One from the future is from before the clock was set back.
        """
        bounds = {"after": after, "limit": limit, "until_us": until_us, "now_us": self._clock.wall_us()}
        return [(letter.version[0], letter) for letter in self.list_dead(_LIST_DEAD, **bounds)]

    # for `pages`

    def list_queued(self, sql: str, **bounds: Any) -> list[Queued]:
        """Handles of the queued rows that `sql` lists as one JSON array."""
        return self._queued(self._list_queued(sql, **bounds))

    def list_running(self, sql: str, **bounds: Any) -> list[Observed]:
        """Handles of the rows in progress that `sql` lists."""
        return [self._observed(row) for row in rows.running_rows(self._list(sql, **bounds))]

    def list_dead(self, sql: str, **bounds: Any) -> list[Dead]:
        """Handles of the dead letters that `sql` lists."""
        listed = rows.dead_rows(self._list(sql, **bounds))
        payloads = rows.payloads(self._connection, rows.DEAD_PAYLOADS, {row.id: row.payload_size for row in listed})
        return [self._dead(row, payloads.get(row.id)) for row in listed]

    def row_of(self, sql: str, row_id: int) -> Sequence[Any]:
        """The columns that `sql` selects of one row, which is there."""
        return tuple(rows.one_row(self._connection, sql, (row_id,)))

    def has_backlog_due(self) -> bool:
        """Whether more keys came due than are to be merged into every page."""
        bounds = {"queue": self._queue, "now_us": self._clock.wall_us(), "most_due": _DUE_COUNTED}
        return bool(rows.one_row(self._connection, _COUNT_DUE, bounds)[0] >= _DUE_COUNTED)

    def find(self, key: str) -> tuple[Queued | None, Observed | None, Dead | None]:
        """The handles of one key in each of its places."""
        queued, running, dead = (self._find(sql, key) for sql in (_FIND_QUEUED, _FIND_RUNNING, _FIND_DEAD))
        return (
            next((self._one_queued(row, queued["payload"]) for row in rows.queued_rows(queued["found"])), None),
            next((self._observed(row, running["payload"]) for row in rows.running_rows(running["found"])), None),
            next((self._dead(row, dead["payload"]) for row in rows.dead_rows(dead["found"])), None),
        )

    def _list(self, sql: str, **bounds: Any) -> str:
        listed: str = rows.one_row(self._connection, sql, {"queue": self._queue, **bounds})[0]
        return listed

    def _list_queued(self, sql: str, **bounds: Any) -> list[rows.QueuedRow]:
        return rows.queued_rows(self._list(sql, **bounds))

    def _find(self, sql: str, key: str) -> sqlite3.Row:
        return rows.one_row(self._connection, sql, (self._queue, bound(key)))

    def _queued(self, listed: Sequence[rows.QueuedRow]) -> list[Queued]:
        payloads = rows.payloads(self._connection, rows.QUEUED_PAYLOADS, {row.id: row.payload_size for row in listed})
        return [self._one_queued(row, payloads.get(row.id)) for row in listed]

    def _one_queued(self, row: rows.QueuedRow, payload: bytes | None) -> Queued:
        return Queued(self._handles, rows.queued_entry_of(row, payload), (row.id, row.stamp))

    def _observed(self, row: rows.RunningRow, payload: bytes | None = None) -> Observed:
        orphaned = not self._is_of_this_boot(row) or row.expires_us <= self._clock.steady_us()
        entry = rows.entry_of(row, payload)
        version, seen = (row.token, row.expires_us), self._seen(row)
        return Observed(self._handles, entry, row.owner or "", orphaned, version, seen)

    def _seen(self, row: rows.RunningRow) -> LeaseTimesSeen:
        """When its attempt began and its lease lapses; of another boot's clock nobody knows what it would show now."""
        steady_is_behind_us = self._clock.wall_us() - self._clock.steady_us()
        expires_us = row.expires_us + steady_is_behind_us if self._is_of_this_boot(row) else 0
        return LeaseTimesSeen(rows.whole(row.began_us, 0, LATEST_US), expires_us)

    def _is_of_this_boot(self, row: rows.RunningRow) -> bool:
        return self._boot is None or row.boot == self._boot

    def _dead(self, row: rows.DeadRow, payload: bytes | None) -> Dead:
        return Dead(self._handles, rows.letter_of(row, payload), (row.id, row.stamp))

    # gauges and limits

    def counts(self, most_due: int = _DUE_COUNTED) -> tuple[Counts, bool]:
        """The gauges, and whether more keys came due than were counted, which are `most_due` at most."""
        now_us = self._clock.wall_us()
        row = rows.one_row(self._connection, _COUNT, {"queue": self._queue, "now_us": now_us, "most_due": most_due})
        ready, delayed, twins, letters = (rows.whole(row[name], 0, _MOST_KEYS) for name in _KEPT_COUNTS)
        since = [us for us in (row["oldest_us"], row["oldest_due_us"]) if isinstance(us, int)]
        counts = Counts(
            queued=ready + row["due"],
            not_before=max(delayed - row["due"], 0),
            twins=twins,
            in_progress=row["running"],
            dead_lettered=letters,
            oldest_queued_seconds=max(now_us - min(since), 0) / 1e6 if since else 0.0,
            max_attempts=max(rows.attempts(row["queued_attempts"]), rows.attempts(row["running_attempts"])),
            in_progress_by_owner={owner or "": keys for owner, keys in json.loads(row["owners"])},
        )
        return counts, row["due"] >= most_due

    def configuration(self) -> Configuration:
        """The stored settings."""
        return standing_of(self._standing()).configuration

    def outlook(self, concurrency: int) -> Outlook:
        """When a lease step under `concurrency` may next find something to do."""
        row = self._standing()
        standing = standing_of(row)
        changes = [0] if row["of_another_boot"] else []
        if isinstance(row["expires_us"], int):
            changes.append(row["expires_us"] - self._clock.steady_us())
        room = standing.configuration.room(concurrency, standing.running) > 0
        if room:
            changes.append(self._eligible_in(standing, bool(row["ready"]), row["due_us"]))
        return Outlook(max(min(changes, default=_NEVER_US), 0), room)

    def _eligible_in(self, standing: Standing, ready: bool, due_us: Any) -> int:
        now_us = self._clock.wall_us()
        if not ready:
            wait_us = max(due_us - now_us, 0) if isinstance(due_us, int) else _NEVER_US
            if wait_us:
                return wait_us
        rate = standing.configuration.starts_per_second
        return standing.bucket.refilled(rate, now_us).wait_us(rate) if rate is not None else 0

    def _standing(self) -> sqlite3.Row:
        return rows.one_row(self._connection, _STANDING, {"queue": self._queue, "boot": self._boot})


class Reads:
    """The reader's thread and connection.

    Args:
        file: the file; in its write-ahead log a read waits for a lock only while a crash is recovered from.
        opened: which file the writer has open; called once there is a question.
        view: what a question is asked of, made from the connection once there is one.
    """

    def __init__(
        self, file: QueueFile, opened: Callable[[], SameFile], view: Callable[[sqlite3.Connection], View]
    ) -> None:
        self._file = file
        self._opened = opened
        self._make_view = view
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="workqueue-sqlite-reads")
        self._is_used = False
        self._connection: sqlite3.Connection | None = None
        self._view: View | None = None

    async def open(self, find: Callable[[sqlite3.Connection], int]) -> int:
        """Open the file now, which else the first question does; returns the id of the queue, which `find` finds.

        Raises:
            StoreError: as SQLite says.
        """
        return await self._on_thread(lambda: find(self._connected()))

    async def look(self, question: Callable[[View], _T]) -> _T:
        """The answer to `question`; what it asks is seen as of one commit.

        Raises:
            StoreError: as SQLite says.
        """
        return await self._on_thread(partial(self._look, question))

    async def _on_thread(self, step: Callable[[], _T]) -> _T:
        self._is_used = True
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._typed, step)

    async def close(self) -> None:
        """Let the questions under way be answered, then close the connection."""
        if not self._is_used:  # an interpreter that ends, from Python 3.12 on, starts no thread any more
            self._pool.shutdown(wait=False)
            return
        disconnecting = asyncio.get_running_loop().run_in_executor(self._pool, self._disconnect)
        self._pool.shutdown(wait=False)  # at once, in case this is cancelled
        await asyncio.shield(disconnecting)

    def _typed(self, step: Callable[[], _T]) -> _T:
        try:
            return step()
        except sqlite3.Error as error:
            raise translated(error, self._file.path) from error

    def _look(self, question: Callable[[View], _T]) -> _T:
        connection = self._connected()
        self._same_file.check_file()
        if self._view is None:
            self._view = self._make_view(connection)
        connection.execute("BEGIN")
        try:
            return question(self._view)
        finally:
            connection.execute("ROLLBACK")

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
            self._connection.execute("PRAGMA query_only = ON")
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        if self._file.read_only:
            connection = connect_to_look(self._file)
            self._same_file = SameFile(self._file, connection.file_id)
            return connection
        self._same_file = self._opened()
        self._same_file.check()
        return connect(self._file, "mode=ro")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
