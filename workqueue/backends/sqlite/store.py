"""The steps of one SQLite queue. Each runs on the writer thread, inside the transaction that it opened.

A whole batch runs as one step: first every settle ends its lease, then what they put back and what was enqueued is
merged and stored, then everything else in turn. All calls of a batch are under way at the same time, so any order of
them is a true one, but for starts: those find the room of the settles before them. What an entry looks like afterwards
is decided by `rules`; `leasing` starts and recovers.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache
from itertools import count
from random import SystemRandom
from typing import Any, ClassVar

from workqueue.backends.sqlite import rows as rows
from workqueue.backends.sqlite.parameters import as_json, dead_values, insert_many, queued_values
from workqueue.backends.sqlite.queue_row import RowGoneError
from workqueue.backends.sqlite.schema import DELAYED, READY, TWIN
from workqueue.clock import Clock
from workqueue.options import Options
from workqueue.rules import DeadLetter, Entry, enqueued, merge_incoming, redriven, spared
from workqueue.throttle import Configuration

__all__ = ["Arrival", "Ask", "Change", "Enqueue", "Identity", "Settle", "Step", "Store"]

# Every statement runs inside the batch's BEGIN IMMEDIATE transaction: nobody writes between two of them, and a crash
# before COMMIT undoes all of them. What stands above each name is why it needs no more than that.
#
# OR ROLLBACK, here and in the triggers: a batch that meets a broken constraint is rolled back anyway, so SQLite need
# not keep every page that a statement touches in order to undo that statement alone (a third of what a start cost).

_KEYS = "key IN (SELECT value FROM json_each(CAST(:keys AS TEXT)))"
_TOKENS = "token IN (SELECT value FROM json_each(CAST(? AS TEXT)))"

# Reads both places at once; the rows cannot change before they are written back below.
_FIND = f"""
SELECT
  (SELECT json_group_array({rows.QUEUED_UNPINNED}) FROM queued WHERE queue = :queue AND {_KEYS}) AS queued,
  (SELECT json_group_array(CAST(key AS TEXT)) FROM in_progress WHERE queue = :queue AND {_KEYS}) AS running
"""
_QUEUED_COLUMNS = (
    "id, queue, key, place, priority, attempts, queued_us, first_queued_us, not_before_us, floor, stamp, payload, meta"
)
# One statement for new and for changed rows: a row is never gone in between, so triggers count it right.
_PUT = f"""
INSERT OR ROLLBACK INTO queued ({_QUEUED_COLUMNS}) VALUES %s ON CONFLICT (id) DO UPDATE SET
  place = excluded.place, priority = excluded.priority, attempts = excluded.attempts, queued_us = excluded.queued_us,
  first_queued_us = excluded.first_queued_us, not_before_us = excluded.not_before_us, floor = excluded.floor,
  stamp = excluded.stamp, payload = excluded.payload, meta = excluded.meta
"""
_PUT_ROW = "(?, ?, CAST(? AS TEXT), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

# The fence: only who knows the token finds the row, and the row is deleted before anything is written on its behalf.
_HELD = f"SELECT json_group_array(token) FROM in_progress WHERE {_TOKENS}"
_END = f"DELETE FROM in_progress WHERE {_TOKENS}"
# Mostly there is neither, and then nothing need be looked for by the keys that ended.
_KEPT = f"""
SELECT EXISTS (SELECT 1 FROM queued INDEXED BY queued_twin WHERE queue = :queue AND place = {TWIN}) AS twins,
  EXISTS (SELECT 1 FROM dead WHERE queue = :queue) AS letters
"""
# The attempts of these keys ended in this transaction, so their twins are ordinary queued rows from here on.
_FREE_TWINS = f"""
UPDATE OR ROLLBACK queued INDEXED BY queued_twin
SET place = CASE WHEN not_before_us > :now_us THEN {DELAYED} ELSE {READY} END
WHERE queue = :queue AND place = {TWIN} AND {_KEYS}
"""
_FORGET_LETTERS = f"DELETE FROM dead WHERE queue = :queue AND {_KEYS}"
_PUT_LETTER = """
INSERT INTO dead (queue, key, priority, attempts, queued_us, first_queued_us, payload, meta, error, failed_us, stamp)
VALUES (?, CAST(? AS TEXT), ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# The stamp makes these no-ops on a row that changed since it was listed.
_DROP_QUEUED = "DELETE FROM queued WHERE id = ? AND stamp = ?"
_DROP_DEAD = "DELETE FROM dead WHERE id = ? AND stamp = ?"
_LETTER = f"""
SELECT json_group_array({rows.DEAD}) AS letters, max(CAST(payload AS BLOB)) AS payload
FROM dead WHERE id = ? AND stamp = ?
"""
# What only a hand can have done: a twin whose lease it deleted waits for an attempt that is gone, and a key in progress
# that it made eligible cannot be started, which fails the lease step.
_FREE_STRANDED = f"""
UPDATE OR ROLLBACK queued INDEXED BY queued_twin
SET place = CASE WHEN not_before_us > :now_us THEN {DELAYED} ELSE {READY} END
WHERE queue = :queue AND place = {TWIN} AND key NOT IN (SELECT key FROM in_progress WHERE queue = :queue)
"""
_HOLD_BACK = f"""
UPDATE OR ROLLBACK queued SET place = {TWIN}
WHERE queue = :queue AND place <> {TWIN} AND key IN (SELECT key FROM in_progress WHERE queue = :queue)
"""
_CONFIGURE = "UPDATE queues SET concurrency = ?, paused = ?, starts_per_second = ? WHERE id = ?"
# A new rate begins with one second's worth of starts; the same rate keeps what is saved up.
_REFILL = """
UPDATE queues SET saved_starts = max(coalesce(:rate, 0), 1), saved_at_us = :now_us
WHERE id = :queue AND starts_per_second IS NOT :rate
"""


class Change(IntFlag):
    """What a transaction changed that somebody may be waiting for."""

    NOTHING = 0
    ELIGIBLE = 1
    ROOM = 2
    ELSEWHERE = 4
    """Another process committed something."""
    EVERYTHING = ELIGIBLE | ROOM | ELSEWHERE


@dataclass(frozen=True, slots=True)
class Identity:
    """Who starts keys through this handle: `owner` for operators, `boot` and `lease_us` for judging its leases."""

    owner: str
    boot: int
    lease_us: int


@dataclass(slots=True)
class Arrival:
    """An entry on its way into the queue, how it merges with one that is there, and what became of it."""

    entry: Entry
    merge: Callable[[Entry, Entry], Entry]
    deduped: bool = False
    not_before_us: int = 0


@dataclass(slots=True)
class Enqueue:
    """Store these keys; the answer says what became of each."""

    items: Sequence[tuple[str, Options]]
    now_us: int
    answer: Sequence[Arrival] = ()

    @property
    def keys(self) -> int:
        """How many keys the step touches."""
        return len(self.items)

    def arrivals(self) -> Sequence[Arrival]:
        """The entries to store; a batch that is run again starts from fresh ones."""
        self.answer = [Arrival(enqueued(key, options, self.now_us), merge_incoming) for key, options in self.items]
        return self.answer


@dataclass(slots=True)
class Settle:
    """End the lease `token` and leave `back` in the queue or `letter` among the dead; neither = the key is completed.

    The answer is whether the token still owned the key.
    """

    token: int
    key: str
    back: Arrival | None = None
    letter: DeadLetter | None = None
    answer: bool = False
    keys: ClassVar[int] = 1


@dataclass(slots=True)
class Ask:
    """Anything else: run `question` on the store; the answer is what it returned."""

    question: Callable[[Store], Any]
    answer: Any = None
    keys: ClassVar[int] = 1


Step = Enqueue | Settle | Ask


class Store:
    """The rows of one queue, seen from the writer thread.

    Args:
        connection: the writer's; a transaction is open whenever a method is called.
        queue: the id of the queue in `queues`.
        identity: who starts keys.
        clock: wall time for not-before, steady time for leases.
    """

    def __init__(self, connection: sqlite3.Connection, queue: int, identity: Identity, clock: Clock) -> None:
        self.connection = connection
        self.queue = queue
        self.identity = identity
        self.clock = clock
        self.changed = Change.NOTHING
        # Unique without asking anybody: 2**62 places to start counting from, for every handle that was ever opened.
        self.tokens = count(SystemRandom().getrandbits(62))
        self._stamps = count(SystemRandom().getrandbits(62))
        self._is_sound = False

    def perform(self, steps: Sequence[Step]) -> None:
        """Run a batch; the answers are left in the steps."""
        self.changed = Change.NOTHING
        for turn in _turns(steps):
            self._perform(turn)

    def _perform(self, steps: Sequence[Step]) -> None:
        arrivals = self.end([step for step in steps if type(step) is Settle])
        for step in steps:
            if type(step) is Enqueue:
                arrivals += step.arrivals()
        self.put(arrivals)
        for step in steps:
            if type(step) is Ask:
                step.answer = step.question(self)

    # into the queue

    def put(self, arrivals: Sequence[Arrival]) -> None:
        """Merge `arrivals`, in their order, into the queue."""
        if not arrivals:
            return
        found, running = self._find({arrival.entry.key for arrival in arrivals})
        for arrival in arrivals:
            _merge(found, arrival)
        self._write(found, running)

    def _write(self, found: Mapping[str, _Queued], running: Collection[str]) -> None:
        """Store those of `found` that changed."""
        now_us = self.clock.wall_us()
        changed = [queued for queued in found.values() if queued.changed]
        insert_many(self.connection, _put_statement, [self._values(queued, running, now_us) for queued in changed])
        if changed:
            self.changed |= Change.ELIGIBLE

    def _find(self, keys: Iterable[str]) -> tuple[dict[str, _Queued], set[str]]:
        found = rows.one_row(self.connection, _FIND, self._keys(keys))
        listed = rows.queued_rows(found["queued"])
        payloads = rows.payloads(self.connection, rows.QUEUED_PAYLOADS, {row.id: row.payload_size for row in listed})
        entries = [_Queued(row.id, rows.queued_entry_of(row, payloads.get(row.id))) for row in listed]
        return {queued.entry.key: queued for queued in entries}, set(json.loads(found["running"]))

    def _keys(self, keys: Iterable[str]) -> dict[str, Any]:
        return {"queue": self.queue, "keys": as_json(list(keys))}

    def _values(self, queued: _Queued, running: Collection[str], now_us: int) -> tuple[Any, ...]:
        entry = queued.entry
        place = TWIN if entry.key in running else DELAYED if entry.not_before_us > now_us else READY
        return queued_values(queued.row_id, self.queue, entry, place, next(self._stamps))

    # out of in progress

    def end(self, settles: Sequence[Settle]) -> list[Arrival]:
        """End the leases that are still held; returns what goes back to the queue."""
        if not settles:
            return []
        held = self.held([settle.token for settle in settles])
        for settle in settles:
            settle.answer = settle.token in held
            held.discard(settle.token)  # of two settles of one lease the first is applied
        ended = [settle for settle in settles if settle.answer]
        if ended:
            self._leave_in_progress(ended)
        return [settle.back for settle in ended if settle.back is not None]

    def held(self, tokens: Sequence[int]) -> set[int]:
        """Those of `tokens` whose leases nobody ended or took."""
        return set(json.loads(rows.one_row(self.connection, _HELD, (as_json(tokens),))[0]))

    def _leave_in_progress(self, ended: Sequence[Settle]) -> None:
        self.connection.execute(_END, (as_json([settle.token for settle in ended]),))
        kept = rows.one_row(self.connection, _KEPT, {"queue": self.queue})
        if kept["twins"]:
            self._free_twins([settle.key for settle in ended])
        # A completed key takes its dead letter along, a dead-lettered one replaces it.
        gone = [settle.key for settle in ended if settle.back is None] if kept["letters"] else ()
        if gone:
            self.connection.execute(_FORGET_LETTERS, self._keys(gone))
        letters = [settle.letter for settle in ended if settle.letter is not None]
        if letters:
            self._bury(letters)
        self.changed |= Change.ROOM

    def _free_twins(self, keys: Iterable[str]) -> None:
        twins = {**self._keys(keys), "now_us": self.clock.wall_us()}
        if self.connection.execute(_FREE_TWINS, twins).rowcount:
            self.changed |= Change.ELIGIBLE

    def _bury(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            self.connection.execute(_PUT_LETTER, dead_values(self.queue, letter, next(self._stamps)))
        twins, running = self._find([letter.entry.key for letter in letters])
        for twin in twins.values():
            twin.become(spared(twin.entry))
        self._write(twins, running)

    def mend(self) -> None:
        """Put every queued row in its place, if that was not done yet or a row was found in a wrong one."""
        if not self._is_sound:
            self.connection.execute(_FREE_STRANDED, {"queue": self.queue, "now_us": self.clock.wall_us()})
            self.connection.execute(_HOLD_BACK, {"queue": self.queue})
            self._is_sound = True

    @contextmanager
    def noticing_disorder(self) -> Iterator[None]:
        """Have the next `mend` look again if a row turns out to be in a wrong place."""
        try:
            yield
        except sqlite3.IntegrityError:
            self._is_sound = False
            raise

    # the verbs of queued and dead-lettered keys

    def drop_queued(self, row_id: int, stamp: int) -> bool:
        """Remove a queued row, if it is unchanged."""
        return self.connection.execute(_DROP_QUEUED, (row_id, stamp)).rowcount == 1

    def drop_dead(self, row_id: int, stamp: int) -> bool:
        """Remove a dead letter, if it is unchanged."""
        return self.connection.execute(_DROP_DEAD, (row_id, stamp)).rowcount == 1

    def redrive(self, row_id: int, stamp: int, now_us: int) -> bool:
        """Queue a dead-lettered key again and remove the letter, if it is unchanged."""
        found = rows.one_row(self.connection, _LETTER, (row_id, stamp))
        letters = rows.dead_rows(found["letters"])
        if not letters:
            return False
        letter = rows.letter_of(letters[0], found["payload"])
        self.drop_dead(row_id, stamp)
        self.put([Arrival(redriven(letter, None, now_us), lambda queued, _: redriven(letter, queued, now_us))])
        return True

    # settings

    def configure(self, wanted: Configuration, now_us: int) -> None:
        """Replace the stored settings.

        Raises:
            RowGoneError: there is no row for them.
        """
        rate = wanted.starts_per_second
        self.connection.execute(_REFILL, {"rate": rate, "now_us": now_us, "queue": self.queue})
        values = (wanted.concurrency, wanted.paused, rate, self.queue)
        if not self.connection.execute(_CONFIGURE, values).rowcount:
            raise RowGoneError
        self.changed |= Change.ROOM | Change.ELIGIBLE


def _turns(steps: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """`steps` in parts, so that what was asked for before a settle does not find the room that the settle makes."""
    first, asks = 0, False
    for number, step in enumerate(steps):
        if asks and type(step) is Settle:
            yield steps[first:number]
            first, asks = number, False
        asks |= type(step) is Ask
    yield steps[first:]


@dataclass(slots=True)
class _Queued:
    """The queued row of a key while a batch works on it; a new row has no id yet."""

    row_id: int | None
    entry: Entry
    changed: bool = False

    def become(self, entry: Entry) -> None:
        """Have the row hold `entry`; one that holds it already is not written."""
        self.changed |= entry != self.entry
        self.entry = entry


def _merge(found: dict[str, _Queued], arrival: Arrival) -> None:
    key = arrival.entry.key
    queued = found.get(key)
    if queued is None:
        queued = found[key] = _Queued(None, arrival.entry, changed=True)
    else:
        queued.become(arrival.merge(queued.entry, arrival.entry))
        arrival.deduped = True
    arrival.not_before_us = queued.entry.not_before_us


@lru_cache
def _put_statement(size: int) -> str:
    return _PUT % ", ".join([_PUT_ROW] * size)
