"""Starting keys, recovering orphans and renewing leases in a SQLite queue, on the writer thread.

`lease` is one transaction: whoever runs it has the file's only write lock, so the room it counts is still there when it
starts keys, with any number of dispatchers (P4), and nobody can slip in before the keys that it chose (P8).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from workqueue.backends.sqlite import rows as rows
from workqueue.backends.sqlite.parameters import as_json
from workqueue.backends.sqlite.schema import DELAYED, READY
from workqueue.backends.sqlite.store import Arrival, Settle, Store
from workqueue.errors import InvalidOptionsError
from workqueue.handles import recovered_orphan
from workqueue.optional import LeaseRequest, RecoveredOrphan
from workqueue.orphan import ORPHAN_ERROR, orphan_wait
from workqueue.rules import Entry, Requeue, dead_lettered, merge_into_twin, requeued
from workqueue.throttle import Configuration, TokenBucket

__all__ = [
    "SETTINGS",
    "LeaseStep",
    "Standing",
    "Start",
    "lease",
    "promote",
    "renew",
    "standing_of",
    "start",
    "take_observed",
]

_PROMOTED_AT_ONCE = 2000
"""How many keys that came due one transaction promotes: about 20 ms. If there are more, `lease` asks again."""

# As in `store`: all of these run inside one transaction, so what one reads still holds for the next.

SETTINGS = """concurrency, paused, starts_per_second, saved_starts, saved_at_us,
  (SELECT count(*) FROM in_progress WHERE queue = :queue) AS running"""
"""The columns of `queues` that `standing_of` reads."""

# Everything that a lease step depends on, in one row.
_STANDING = f"""
SELECT {SETTINGS},
  EXISTS (SELECT 1 FROM in_progress WHERE queue = :queue AND boot = :boot AND expires_us <= :steady_us)
    OR EXISTS (SELECT 1 FROM in_progress WHERE queue = :queue AND (boot < :boot OR boot > :boot)) AS orphans,
  EXISTS (SELECT 1 FROM queued INDEXED BY queued_due
    WHERE queue = :queue AND place = {DELAYED} AND not_before_us <= :wall_us) AS due
FROM queues WHERE id = :queue
"""
_ORPHANS = f"""
SELECT json_group_array({rows.RUNNING}) FROM in_progress
WHERE queue = :queue AND (boot = :boot AND expires_us <= :steady_us OR boot <> :boot)
"""
# Oldest first, so that a step which does not get through all of them leaves none behind.
_PROMOTE = f"""
UPDATE OR ROLLBACK queued SET place = {READY} WHERE id IN (
  SELECT id FROM queued INDEXED BY queued_due WHERE queue = ? AND place = {DELAYED} AND not_before_us <= ?
  ORDER BY not_before_us LIMIT ?)
"""
# In the order of the index, which is that of the promise: no sorting, and no row that cannot start is looked at.
_NEXT = f"""
SELECT json_group_array({rows.QUEUED_UNPINNED}) FROM (
  SELECT * FROM queued INDEXED BY queued_ready WHERE queue = ? AND place = {READY}
  ORDER BY priority DESC, queued_us, key LIMIT ?)
"""
# One listed row, if it is unchanged and eligible; a key that came due need not have been promoted.
_ONE = f"""
SELECT json_group_array({rows.QUEUED_UNPINNED}) FROM queued
WHERE id = ? AND stamp = ? AND (place = {READY} OR place = {DELAYED} AND not_before_us <= ?)
"""
# Takes a JSON object {row id: token}. The row moves as it stands, payload included, without passing through Python.
_START = """
INSERT OR ROLLBACK INTO in_progress
  (token, queue, key, priority, attempts, queued_us, first_queued_us, payload, meta, owner, boot, expires_us, began_us)
SELECT j.value, q.queue, q.key, q.priority, max(CAST(q.attempts AS INTEGER), 0) + 1, q.queued_us, q.first_queued_us,
  q.payload, q.meta, :owner, :boot, :expires_us, :began_us
FROM json_each(:tokens) AS j CROSS JOIN queued AS q ON q.id = CAST(j.key AS INTEGER)
"""
_STARTED = "DELETE FROM queued WHERE id IN (SELECT CAST(key AS INTEGER) FROM json_each(?))"
_SPEND = "UPDATE queues SET saved_starts = ?, saved_at_us = ? WHERE id = ?"
# The lease's token is the fence, as for a settle.
_RENEW = """
UPDATE in_progress SET boot = ?, expires_us = ? WHERE token IN (SELECT value FROM json_each(?))
"""
# An observer pins the expiry too: a lease that was renewed since has an owner who is well.
_OBSERVED = f"SELECT json_group_array({rows.RUNNING}) FROM in_progress WHERE token = ? AND expires_us = ?"


@dataclass(slots=True)
class Start:
    """A key that was started: the entry as it was queued, the token of its lease, and since when that lease runs."""

    entry: Entry
    token: int
    since_us: int


@dataclass(slots=True)
class LeaseStep:
    """What one lease step did. `more_due`: it stopped early, having promoted as much as one transaction may."""

    started: list[Start] = field(default_factory=list)
    recovered: list[RecoveredOrphan] = field(default_factory=list)
    more_due: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """The stored settings and how many keys are in progress."""

    configuration: Configuration
    bucket: TokenBucket
    running: int

    def room(self, concurrency: int, now_us: int) -> int:
        """How many keys may be started now under all limits; may be negative."""
        room = self.configuration.room(concurrency, self.running)
        return self.bucket.starts(room, self.configuration.starts_per_second, now_us)


def standing_of(row: sqlite3.Row) -> Standing:
    """The standing in a row that has the columns `SETTINGS`; a setting that is none limits nothing."""
    saved, at_us, paused = row["saved_starts"], row["saved_at_us"], bool(row["paused"])
    bucket = TokenBucket(saved if isinstance(saved, float) else 0.0, at_us if isinstance(at_us, int) else 0)
    try:
        configuration = Configuration(row["concurrency"], paused, row["starts_per_second"])
    except (InvalidOptionsError, TypeError):
        configuration = Configuration(paused=paused)
    return Standing(configuration, bucket, row["running"])


def lease(store: Store, request: LeaseRequest) -> LeaseStep:
    """Recover every orphan, then start eligible keys in order within all limits."""
    store.mend()
    wall_us = store.clock.wall_us()
    row = _standing(store, wall_us)
    step = LeaseStep()
    if row["orphans"]:
        step.recovered = _recover(store, request, wall_us)
        row = _standing(store, wall_us)
    if row["due"] and promote(store):
        step.more_due = True
        return step
    standing = standing_of(row)
    room = min(request.limit, standing.room(request.concurrency, wall_us))
    if room > 0:
        step.started = _start_next(store, room)
    _spend(store, standing, len(step.started), wall_us)
    return step


def promote(store: Store) -> bool:
    """Make keys that came due eligible; True if there may be more of them than one transaction takes."""
    bounds = (store.queue, store.clock.wall_us(), _PROMOTED_AT_ONCE)
    return store.connection.execute(_PROMOTE, bounds).rowcount == _PROMOTED_AT_ONCE


def _standing(store: Store, wall_us: int) -> sqlite3.Row:
    return rows.one_row(store.connection, _STANDING, {**_now(store), "wall_us": wall_us})


def _now(store: Store) -> dict[str, int]:
    """What leases are judged by."""
    return {"queue": store.queue, "boot": store.identity.boot, "steady_us": store.clock.steady_us()}


def _spend(store: Store, standing: Standing, starts: int, now_us: int) -> None:
    rate = standing.configuration.starts_per_second
    # Also written when the clock went back: else nothing would be saved up until it is where it was.
    if rate is not None and (starts or standing.bucket.at_us > now_us):
        left = standing.bucket.refilled(rate, now_us).spent(starts)
        store.connection.execute(_SPEND, (left.saved, left.at_us, store.queue))


# starts


def _start_next(store: Store, room: int) -> list[Start]:
    listed = rows.queued_rows(rows.one_row(store.connection, _NEXT, (store.queue, room))[0])
    return _start(store, listed) if listed else []


def start(store: Store, row_id: int, stamp: int) -> LeaseStep:
    """Start one listed key, unless it changed, went, or is not eligible."""
    found = rows.queued_rows(rows.one_row(store.connection, _ONE, (row_id, stamp, store.clock.wall_us()))[0])
    return LeaseStep(_start(store, found) if found else [])


def _start(store: Store, listed: list[rows.QueuedRow]) -> list[Start]:
    payloads = rows.payloads(store.connection, rows.QUEUED_PAYLOADS, {row.id: row.payload_size for row in listed})
    now_us = store.clock.steady_us()
    starts = [Start(rows.queued_entry_of(row, payloads.get(row.id)), next(store.tokens), now_us) for row in listed]
    tokens = as_json({row.id: start.token for row, start in zip(listed, starts, strict=True)}).decode()
    who = store.identity
    lease = {"tokens": tokens, "owner": who.owner, "boot": who.boot, "expires_us": now_us + who.lease_us}
    lease["began_us"] = store.clock.wall_us()
    with store.noticing_disorder():
        store.connection.execute(_START, lease)
    store.connection.execute(_STARTED, (tokens,))
    return starts


# orphans


def _recover(store: Store, request: LeaseRequest, now_us: int) -> list[RecoveredOrphan]:
    orphans = _read(store, rows.one_row(store.connection, _ORPHANS, _now(store)))
    settles = [_fate(row.token, entry, request, now_us) for row, entry in orphans]
    store.put(store.end(settles))
    return [
        recovered_orphan(entry, row.owner or "", dead_lettered=settle.letter is not None)
        for (row, entry), settle in zip(orphans, settles, strict=True)
    ]


def _read(store: Store, found: sqlite3.Row) -> list[tuple[rows.RunningRow, Entry]]:
    """The rows that were found, each with the entry that is in progress."""
    listed = rows.running_rows(found[0])
    payloads = rows.payloads(store.connection, rows.RUNNING_PAYLOADS, {row.token: row.payload_size for row in listed})
    return [(row, rows.entry_of(row, payloads.get(row.token))) for row in listed]


def _fate(token: int, entry: Entry, request: LeaseRequest, now_us: int) -> Settle:
    wait = orphan_wait(entry.attempts, request.max_retry, request.backoff)
    return _ending(token, entry, ORPHAN_ERROR if wait is None else Requeue(backoff=wait), now_us)


def _ending(token: int, entry: Entry, how: Requeue | str, now_us: int) -> Settle:
    if isinstance(how, str):
        return Settle(token, entry.key, letter=dead_lettered(entry, how, now_us))
    return Settle(token, entry.key, back=Arrival(requeued(entry, how, now_us), merge_into_twin))


def take_observed(store: Store, pin: tuple[int, int], how: Requeue | str) -> bool:
    """Requeue an observed key as `how` says, or dead-letter it with the error `how`; False if its lease changed.

    Args:
        store: the queue.
        pin: the token and the expiry that were observed.
        how: a `Requeue`, or the text for the dead letter.
    """
    found = _read(store, rows.one_row(store.connection, _OBSERVED, pin))
    if not found:
        return False
    ((row, entry),) = found
    store.put(store.end([_ending(row.token, entry, how, store.clock.wall_us())]))
    return True


# renewal


def renew(store: Store, tokens: Sequence[int]) -> set[int]:
    """Prolong these leases; returns those that are still held."""
    asked = as_json(tokens).decode()
    expires_us = store.clock.steady_us() + store.identity.lease_us
    held = store.held(tokens)
    store.connection.execute(_RENEW, (store.identity.boot, expires_us, asked))
    return held
