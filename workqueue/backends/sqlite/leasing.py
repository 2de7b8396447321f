"""Stages 4-5: starting keys, recovering orphans and renewing leases in a SQLite queue, on the writer thread.

`lease` is one transaction: whoever runs it has the file's only write lock, so the room it counts is still there when it
starts keys, with any number of dispatchers (P4), and nobody can slip in before the keys that it chose (P8).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from workqueue.backends.sqlite import rows as rows
from workqueue.backends.sqlite.schema import DELAYED, READY
from workqueue.backends.sqlite.store import Arrival, Settle, Store
from workqueue.clock import from_us
from workqueue.errors import InvalidOptionsError
from workqueue.interface import LeaseRequest, RecoveredOrphan
from workqueue.orphan import ORPHAN_ERROR, orphan_wait
from workqueue.rules import Entry, Requeue, dead_lettered, merge_into_twin, requeued
from workqueue.throttle import Configuration, TokenBucket

__all__ = ["LeaseStep", "Standing", "Start", "lease", "promote", "renew", "standing_of", "start", "take_observed"]

_PROMOTED_AT_ONCE = 2000
"""How many keys that came due one transaction promotes: about 20 ms. If there are more, `lease` asks again."""

# As in `store`: all of these run inside one transaction, so what one reads still holds for the next.

_LAPSED = "(boot = ?2 AND expires_us <= ?3 OR boot <> ?2)"
# Everything that a lease step depends on, in one row.
_STANDING = f"""
SELECT concurrency, paused, starts_per_second, saved_starts, saved_at_us,
  (SELECT count(*) FROM in_progress WHERE queue = ?1),
  EXISTS (SELECT 1 FROM in_progress WHERE queue = ?1 AND boot = ?2 AND expires_us <= ?3)
    OR EXISTS (SELECT 1 FROM in_progress WHERE queue = ?1 AND (boot < ?2 OR boot > ?2)),
  EXISTS (SELECT 1 FROM queued INDEXED BY queued_due WHERE queue = ?1 AND place = {DELAYED} AND not_before_us <= ?4)
FROM queues WHERE id = ?1
"""
_ORPHANS = f"""
SELECT json_group_array(json_array({rows.COMMON}, token, CAST(owner AS TEXT)))
FROM in_progress WHERE queue = ?1 AND {_LAPSED}
"""
_RUNNING_PAYLOADS = """
SELECT token, CAST(payload AS BLOB) FROM in_progress WHERE token IN (SELECT value FROM json_each(CAST(? AS TEXT)))
"""
# Oldest first, so that a step which does not get through all of them leaves none behind.
_PROMOTE = f"""
UPDATE OR ROLLBACK queued SET place = {READY} WHERE id IN (
  SELECT id FROM queued INDEXED BY queued_due WHERE queue = ?1 AND place = {DELAYED} AND not_before_us <= ?2
  ORDER BY not_before_us LIMIT ?3)
"""
# In the order of the index, which is that of the promise: no sorting, and no row that cannot start is looked at.
_NEXT = f"""
SELECT json_group_array(json_array({rows.WAITING})) FROM (
  SELECT * FROM queued INDEXED BY queued_ready WHERE queue = ?1 AND place = {READY}
  ORDER BY priority DESC, queued_us, key LIMIT ?2)
"""
# One listed row, if it is unchanged and eligible; a key that came due need not have been promoted.
_ONE = f"""
SELECT json_array({rows.WAITING}) FROM queued
WHERE id = ?1 AND stamp = ?2 AND (place = {READY} OR place = {DELAYED} AND not_before_us <= ?3)
"""
# Takes a JSON object {row id: token}. The row moves as it stands, payload included, without passing through Python.
_START = """
INSERT OR ROLLBACK INTO in_progress
  (token, queue, key, priority, attempts, queued_us, first_queued_us, payload, meta, owner, boot, expires_us)
SELECT j.value, q.queue, q.key, q.priority, max(CAST(q.attempts AS INTEGER), 0) + 1, q.queued_us, q.first_queued_us,
  q.payload, q.meta, ?2, ?3, ?4
FROM json_each(?1) AS j CROSS JOIN queued AS q ON q.id = CAST(j.key AS INTEGER)
"""
_STARTED = "DELETE FROM queued WHERE id IN (SELECT CAST(key AS INTEGER) FROM json_each(?))"
_SPEND = "UPDATE queues SET saved_starts = ?, saved_at_us = ? WHERE id = ?"
# The lease's token is the fence, as for a settle.
_RENEW = """
UPDATE in_progress SET boot = ?1, expires_us = ?2 WHERE token IN (SELECT value FROM json_each(?3))
"""
# An observer pins the expiry too: a lease that was renewed since has an owner who is well.
_OBSERVED = f"SELECT json_array({rows.COMMON}, token) FROM in_progress WHERE token = ? AND expires_us = ?"


@dataclass(frozen=True, slots=True)
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


def standing_of(row: Sequence[Any]) -> Standing:
    """The standing in a row that begins with the settings of `queues` and the number of keys in progress.

    A setting that is none limits nothing.
    """
    concurrency, paused, rate, saved, at_us, running = row[:6]
    bucket = TokenBucket(saved if isinstance(saved, float) else 0.0, at_us if isinstance(at_us, int) else 0)
    try:
        configuration = Configuration(concurrency, bool(paused), rate)
    except (InvalidOptionsError, TypeError):
        configuration = Configuration(paused=bool(paused))
    return Standing(configuration, bucket, running)


def lease(store: Store, request: LeaseRequest) -> LeaseStep:
    """Recover every orphan, then start eligible keys in order within all limits."""
    store.mend()
    wall_us = store.clock.wall_us()
    row = _standing(store, wall_us)
    step = LeaseStep()
    if row[6]:
        step.recovered = _recover(store, request, wall_us)
        row = _standing(store, wall_us)
    if row[7] and promote(store):
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


def _standing(store: Store, wall_us: int) -> Sequence[Any]:
    steady_us = store.clock.steady_us()
    row: Sequence[Any] = rows.one_row(
        store.connection, _STANDING, (store.queue, store.identity.boot, steady_us, wall_us)
    )
    return row


def _spend(store: Store, standing: Standing, starts: int, now_us: int) -> None:
    rate = standing.configuration.starts_per_second
    # Also written when the clock went back: else nothing would be saved up until it is where it was.
    if rate is not None and (starts or standing.bucket.at_us > now_us):
        left = standing.bucket.refilled(rate, now_us).spent(starts)
        store.connection.execute(_SPEND, (left.saved, left.at_us, store.queue))


# starts


def _start_next(store: Store, room: int) -> list[Start]:
    listed = json.loads(rows.one_row(store.connection, _NEXT, (store.queue, room))[0])
    return _start(store, listed) if listed else []


def start(store: Store, row_id: int, stamp: int) -> LeaseStep:
    """Start one listed key, unless it changed, went, or is not eligible."""
    found = rows.one_row(store.connection, _ONE, (row_id, stamp, store.clock.wall_us()))
    return LeaseStep(_start(store, [json.loads(found[0])]) if found else [])


def _start(store: Store, listed: list[rows.Row]) -> list[Start]:
    ids = [row[9] for row in listed]
    payloads = rows.payloads(store.connection, rows.QUEUED_PAYLOADS, zip(ids, listed, strict=True))
    now_us = store.clock.steady_us()
    starts = [Start(rows.queued_entry_of(row, payloads.get(row[9])), next(store.tokens), now_us) for row in listed]
    tokens = rows.as_json({row_id: start.token for row_id, start in zip(ids, starts, strict=True)}).decode()
    who = store.identity
    with store.noticing_disorder():
        store.connection.execute(_START, (tokens, who.owner, who.boot, now_us + who.lease_us))
    store.connection.execute(_STARTED, (tokens,))
    return starts


# orphans


def _recover(store: Store, request: LeaseRequest, now_us: int) -> list[RecoveredOrphan]:
    bounds = (store.queue, store.identity.boot, store.clock.steady_us())
    orphans = json.loads(rows.one_row(store.connection, _ORPHANS, bounds)[0])
    entries = _with_payloads(store.connection, orphans)
    settles = [_fate(entry, row, request, now_us) for entry, row in zip(entries, orphans, strict=True)]
    store.put(store.end(settles))
    return [_recovered(entry, row, settle) for entry, row, settle in zip(entries, orphans, settles, strict=True)]


def _with_payloads(connection: sqlite3.Connection, listed: Iterable[rows.Row]) -> list[Entry]:
    listed = list(listed)
    payloads = rows.payloads(connection, _RUNNING_PAYLOADS, [(row[7], row) for row in listed])
    return [rows.entry_of(row, payloads.get(row[7])) for row in listed]


def _fate(entry: Entry, row: rows.Row, request: LeaseRequest, now_us: int) -> Settle:
    wait = orphan_wait(entry.attempts, request.max_retry, request.backoff)
    return _ending(row[7], entry, ORPHAN_ERROR if wait is None else Requeue(backoff=wait), now_us)


def _recovered(entry: Entry, row: rows.Row, settle: Settle) -> RecoveredOrphan:
    first = from_us(entry.first_queued_us)
    return RecoveredOrphan(entry.key, entry.attempts, row[8] or "", entry.priority, first, settle.letter is not None)


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
    found = rows.one_row(store.connection, _OBSERVED, pin)
    if found is None:
        return False
    token, _ = pin
    (entry,) = _with_payloads(store.connection, [json.loads(found[0])])
    store.put(store.end([_ending(token, entry, how, store.clock.wall_us())]))
    return True


# renewal


def renew(store: Store, tokens: Sequence[int]) -> set[int]:
    """Prolong these leases; returns those that are still held."""
    asked = rows.as_json(tokens).decode()
    expires_us = store.clock.steady_us() + store.identity.lease_us
    held = store.held(tokens)
    store.connection.execute(_RENEW, (store.identity.boot, expires_us, asked))
    return held
