"""A plain model of the queue, written from DESIGN §4 and from nothing else: dicts, whole seconds, one process.

It must not use `workqueue.rules`: a mistake there would then be the model's too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

LEASE_SECONDS = 15


@dataclass(frozen=True)
class Waiting:
    """A queued entry. `touched` grows with everything that happened to it, also where nothing came of it."""

    priority: int
    attempts: int
    queued: int
    first: int
    not_before: int | None
    floor: bool
    payload: bytes | None
    meta: Mapping[str, str] = field(default_factory=dict)
    touched: int = 0

    def same_as(self, other: Waiting) -> bool:
        return replace(self, touched=0) == replace(other, touched=0)


@dataclass(frozen=True)
class Running:
    """A key in progress; its owner goes on renewing until `abandoned_at`."""

    entry: Waiting
    token: int
    owner: str
    abandoned_at: int | None = None


@dataclass(frozen=True)
class Letter:
    """A dead letter."""

    entry: Waiting
    error: str
    failed: int
    number: int

    def same_as(self, other: Letter) -> bool:
        return self.entry.same_as(other.entry) and (self.error, self.failed) == (other.error, other.failed)

    def facts(self) -> tuple[Any, ...]:
        entry, meta = self.entry, tuple(sorted(self.entry.meta.items()))
        return (entry.priority, entry.attempts, repr(entry.payload), meta, entry.first, self.error, self.failed)


class Model:
    """What a queue must look like. Every step returns what the verb must answer."""

    def __init__(self, wall: int) -> None:
        self.wall = wall
        self.steady = 0
        self.queued: dict[str, Waiting] = {}
        self.running: dict[str, Running] = {}
        self.dead: dict[str, Letter] = {}
        self.paused = False
        self.stored_concurrency: int | None = None
        self._numbers = count(1)

    # producing

    def enqueue(self, key: str, entry: Waiting) -> None:
        existing = self.queued.get(key)
        if existing is None:
            self.queued[key] = replace(entry, touched=next(self._numbers))
            return
        self.queued[key] = self._merged(existing, entry, newer=entry, older=existing, queued=existing.queued)

    def _merged(self, existing: Waiting, incoming: Waiting, *, newer: Waiting, older: Waiting, queued: int) -> Waiting:
        not_before, floor = _not_before(existing, incoming)
        return Waiting(
            priority=max(existing.priority, incoming.priority),
            attempts=max(existing.attempts, incoming.attempts),
            queued=queued,
            first=min(existing.first, incoming.first),
            not_before=not_before,
            floor=floor,
            payload=older.payload if newer.payload is None else newer.payload,
            meta=dict(older.meta) | dict(newer.meta),
            touched=next(self._numbers),
        )

    # starting

    def eligible(self) -> list[str]:
        keys = [key for key in self.queued if self.is_eligible(key)]
        return sorted(keys, key=lambda key: (-self.queued[key].priority, self.queued[key].queued, key))

    def is_eligible(self, key: str) -> bool:
        entry = self.queued.get(key)
        return entry is not None and key not in self.running and (entry.not_before or 0) <= self.wall

    def room(self, concurrency: int) -> int:
        stored = self.stored_concurrency
        limit = concurrency if stored is None else min(stored, concurrency)
        return 0 if self.paused else max(limit - len(self.running), 0)

    def start(self, key: str, owner: str) -> int:
        entry = self.queued.pop(key)
        token = next(self._numbers)
        running = replace(entry, attempts=entry.attempts + 1, not_before=None, floor=False)
        self.running[key] = Running(running, token, owner)
        return token

    # ending an attempt

    def owns(self, key: str, token: int) -> bool:
        return key in self.running and self.running[key].token == token

    def complete(self, key: str) -> None:
        del self.running[key]
        self.dead.pop(key, None)

    def requeue(self, key: str, *, delay: int | None = None, backoff: int | None = None, floor: bool = False) -> None:
        entry = self.running.pop(key).entry
        wait = delay or backoff
        if wait is None and entry.priority > 0:
            wait = min(30 * entry.attempts, 600)
        self._put_back(
            key,
            replace(
                entry,
                attempts=0 if delay else entry.attempts,
                queued=self.wall,
                not_before=self.wall + wait if wait else None,
                floor=floor,
            ),
            release=False,
        )

    def release(self, key: str) -> None:
        entry = self.running.pop(key).entry
        self._put_back(key, replace(entry, attempts=entry.attempts - 1, not_before=None, floor=False), release=True)

    def _put_back(self, key: str, entry: Waiting, *, release: bool) -> None:
        twin = self.queued.get(key)
        if twin is None:
            self.queued[key] = replace(entry, touched=next(self._numbers))
            return
        queued = min(twin.queued, entry.queued) if release else twin.queued
        self.queued[key] = self._merged(twin, entry, newer=twin, older=entry, queued=queued)

    def dead_letter(self, key: str, error: str) -> None:
        self.dead[key] = Letter(self.running.pop(key).entry, error, self.wall, next(self._numbers))
        if key in self.queued:
            self.queued[key] = replace(self.queued[key], attempts=0, touched=next(self._numbers))

    def redrive(self, key: str) -> None:
        entry = self.dead.pop(key).entry
        back = replace(entry, attempts=0, queued=self.wall, first=self.wall, not_before=None, floor=False)
        queued = self.queued.get(key)
        if queued is None:
            self.queued[key] = replace(back, touched=next(self._numbers))
            return
        merged = self._merged(queued, back, newer=queued, older=back, queued=queued.queued)
        self.queued[key] = replace(merged, attempts=0)

    # time and leases

    def abandon(self, key: str) -> None:
        if self.running[key].abandoned_at is None:
            self.running[key] = replace(self.running[key], abandoned_at=self.steady)

    def orphaned(self, key: str) -> bool:
        abandoned_at = self.running[key].abandoned_at
        return abandoned_at is not None and self.steady >= abandoned_at + LEASE_SECONDS

    def unsure(self) -> bool:
        """Whether some lease may have lapsed or not: its last renewal was at most 6 s before it was abandoned."""
        left = [held.abandoned_at for held in self.running.values() if held.abandoned_at is not None]
        return any(LEASE_SECONDS - 7 <= self.steady - at <= LEASE_SECONDS for at in left)

    def advance(self, seconds: int) -> None:
        self.wall += seconds
        self.steady += seconds

    # what can be seen

    def view(self) -> dict[str, Any]:
        return {
            "in progress": sorted((k, h.entry.attempts, h.owner, self.orphaned(k)) for k, h in self.running.items()),
            "queued": [(key, *_facts(self.queued[key])) for key in self.eligible()],
            "twins": sorted((key, *_facts(self.queued[key])) for key in self.queued if key in self.running),
            "dead": sorted((key, *letter.facts()) for key, letter in self.dead.items()),
        }

    def state(self, key: str) -> tuple[str, ...] | None:
        """Place and owner of a key, the error of its dead letter wherever else it is, then its facts."""
        letter = self.dead.get(key)
        error = letter.error if letter is not None else ""
        if key in self.running:
            held = self.running[key]
            return ("IN_PROGRESS", held.owner, error, *_facts(held.entry))
        if key in self.queued:
            return ("QUEUED", "", error, *_facts(self.queued[key]))
        if letter is not None:
            return ("DEAD_LETTER", "", error, *_facts(replace(letter.entry, queued=letter.entry.first)))
        return None

    def counts(self) -> dict[str, Any]:
        eligible, twins = self.eligible(), [key for key in self.queued if key in self.running]
        since = [max(self.queued[key].queued, self.queued[key].not_before or 0) for key in eligible]
        attempts = [e.attempts for e in (*self.queued.values(), *(h.entry for h in self.running.values()))]
        owners = [held.owner for held in self.running.values()]
        return {
            "queued": len(eligible),
            "twins": len(twins),
            "not_before": len(self.queued) - len(eligible) - len(twins),
            "in_progress": len(self.running),
            "dead_lettered": len(self.dead),
            "oldest_queued_seconds": float(max(self.wall - min(since), 0)) if since else 0.0,
            "max_attempts": max(attempts, default=0),
            "in_progress_by_owner": {owner: owners.count(owner) for owner in owners},
        }


def _not_before(existing: Waiting, incoming: Waiting) -> tuple[int | None, bool]:
    """The table of DESIGN §4; None is the earliest of all."""
    earlier, later = sorted((existing.not_before or 0, incoming.not_before or 0))
    rows = {
        (False, False): (earlier or None, False),
        (False, True): (incoming.not_before, True),
        (True, False): (existing.not_before, True),
        (True, True): (later or None, True),
    }
    return rows[existing.floor, incoming.floor]


def _facts(entry: Waiting) -> tuple[Any, ...]:
    meta = tuple(sorted(entry.meta.items()))
    times = (entry.queued, entry.not_before, entry.floor)
    return (entry.priority, entry.attempts, *times, repr(entry.payload), meta)
