"""What a store keeps of a key, and how every step changes it (pure; one copy for every backend).

A backend decides *where* an entry lies and makes each step atomic; *what* the entry looks like afterwards is decided
here. The Redis scripts are the one port of these rules, held to them by the conformance and model suites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from workqueue.backoff import bare_requeue_delay
from workqueue.clock import LATEST_US, duration_us, to_us
from workqueue.errors import InvalidOptionsError
from workqueue.options import LAST_ERROR, NO_META, Options, check_duration, no_meta
from workqueue.safe_text import cut

__all__ = [
    "BARE",
    "MAX_LAST_ERROR_BYTES",
    "DeadLetter",
    "Entry",
    "Requeue",
    "dead_lettered",
    "enqueued",
    "last_error",
    "merge_incoming",
    "merge_into_twin",
    "redriven",
    "released",
    "requeued",
    "spared",
    "started",
    "with_error",
    "without_error",
]


@dataclass(slots=True)
class Entry:
    """One key as it is stored while queued or in progress. Never changed in place; all times in wall microseconds.

    `queued_us` orders keys of one priority; `first_queued_us` is when the key's present story began and is what
    time-to-completion counts from. `not_before_us` 0 = none.
    """

    key: str
    priority: int
    attempts: int
    queued_us: int
    first_queued_us: int
    not_before_us: int = 0
    floor: bool = False
    payload: bytes | None = None
    meta: Mapping[str, str] = field(default_factory=no_meta)


@dataclass(slots=True)
class DeadLetter:
    """A key that was given up: the entry as it was in progress, why, and when."""

    entry: Entry
    error: str
    failed_us: int


@dataclass(frozen=True, slots=True)
class Requeue:
    """How a key goes back to the queue; without arguments, at once unless its priority is high (`bare_requeue_delay`).

    Args:
        delay: not before now + delay, attempts back to 0; more than zero.
        backoff: not before now + backoff, attempts kept, whatever the priority; zero = at once.
        floor: the delay cannot be undercut by enqueues; goes with `delay` only.
        error: why the attempt failed; kept with the queued key, cut to 512 bytes, until its attempts return to 0.

    Raises:
        InvalidOptionsError: both are given, one is out of range, or a floor has no delay.
    """

    delay: timedelta | None = None
    backoff: timedelta | None = None
    floor: bool = False
    error: str = ""

    def __post_init__(self) -> None:
        if self.delay is not None and self.backoff is not None:
            raise InvalidOptionsError("requeue takes a delay or a backoff, not both")
        if self.delay is not None:
            check_duration("a delay", self.delay)
            if self.delay <= timedelta(0):
                raise InvalidOptionsError(f"a delay is more than zero, not {self.delay}")
        if self.backoff is not None:
            check_duration("a backoff", self.backoff)
            if self.backoff < timedelta(0):
                raise InvalidOptionsError(f"a backoff is not negative, as {self.backoff} is")
        if self.floor and self.delay is None:
            raise InvalidOptionsError("a floor needs a delay to hold")


BARE = Requeue()

MAX_LAST_ERROR_BYTES = 512
"""How much of an error a queued key carries, in UTF-8."""


def enqueued(key: str, options: Options, now_us: int) -> Entry:
    """The entry of a new enqueue."""
    not_before_us = to_us(options.not_before) if options.not_before is not None else 0
    floor = options.not_before_floor
    return Entry(key, options.priority, 0, now_us, now_us, not_before_us, floor, options.payload, options.meta)


def merge_incoming(existing: Entry, incoming: Entry) -> Entry:
    """An enqueue meets the queued entry of its key: the enqueue's payload and meta are the newer ones."""
    return _merge(existing, incoming, newer=incoming, older=existing, queued_us=existing.queued_us)


def merge_into_twin(twin: Entry, returning: Entry, *, release: bool = False) -> Entry:
    """A requeued (or released) entry meets the twin that was queued meanwhile, whose payload and meta are newer.

    The twin keeps its place in the queue; only a release, which gives an attempt back unspent, takes the earlier one.
    """
    queued_us = min(twin.queued_us, returning.queued_us) if release else twin.queued_us
    return _merge(twin, returning, newer=twin, older=returning, queued_us=queued_us)


def last_error(meta: Mapping[str, str]) -> str:
    """The last error of a queued key, from its stored meta; '' = it has not failed since its attempts were 0."""
    return meta.get(LAST_ERROR, "")


def with_error(meta: Mapping[str, str], error: str) -> Mapping[str, str]:
    """The stored meta of a key that failed with `error`; an empty one leaves what it says."""
    return {**meta, LAST_ERROR: cut(error, MAX_LAST_ERROR_BYTES)} if error else meta


def without_error(meta: Mapping[str, str]) -> Mapping[str, str]:
    """The stored meta without the queue's own part: what a producer said."""
    return {name: value for name, value in meta.items() if name != LAST_ERROR} if LAST_ERROR in meta else meta


def started(entry: Entry) -> Entry:
    """The entry in progress: one attempt more, not-before and floor cleared."""
    e = entry
    return Entry(e.key, e.priority, e.attempts + 1, e.queued_us, e.first_queued_us, 0, False, e.payload, e.meta)


def requeued(entry: Entry, how: Requeue, now_us: int) -> Entry:
    """The entry an in-progress one goes back to the queue as, at the back, before any twin is merged."""
    wait = how.delay or how.backoff
    if wait is None:
        wait = bare_requeue_delay(entry.priority, entry.attempts)
    e = entry
    attempts = 0 if how.delay else e.attempts
    not_before_us = min(now_us + duration_us(wait), LATEST_US) if wait else 0
    meta = without_error(e.meta) if how.delay else with_error(e.meta, how.error)
    return Entry(e.key, e.priority, attempts, now_us, e.first_queued_us, not_before_us, how.floor, e.payload, meta)


def released(entry: Entry) -> Entry:
    """The entry handed back unspent: one attempt less, at its old place, its passed not-before not restored."""
    return replace(entry, attempts=entry.attempts - 1, not_before_us=0, floor=False)


def dead_lettered(entry: Entry, error: str, now_us: int) -> DeadLetter:
    """The record of a key given up now."""
    return DeadLetter(replace(entry, meta=without_error(entry.meta)), error, now_us)


def spared(twin: Entry) -> Entry:
    """The twin of a key given up now: attempts 0. The dead letter is the record of the failures; the event is new."""
    return replace(twin, attempts=0, meta=without_error(twin.meta))


def redriven(letter: DeadLetter, queued: Entry | None, now_us: int) -> Entry:
    """The queued entry after a re-drive: attempts 0; an entry already queued keeps its place and its payload wins."""
    back = replace(letter.entry, attempts=0, queued_us=now_us, first_queued_us=now_us, not_before_us=0, floor=False)
    return back if queued is None else spared(merge_into_twin(queued, back))


def _merge(existing: Entry, incoming: Entry, *, newer: Entry, older: Entry, queued_us: int) -> Entry:
    not_before_us, floor = _merge_not_before(existing, incoming)
    return Entry(
        existing.key,
        max(existing.priority, incoming.priority),
        max(existing.attempts, incoming.attempts),
        queued_us,
        min(existing.first_queued_us, incoming.first_queued_us),
        not_before_us,
        floor,
        newer.payload if newer.payload is not None else older.payload,
        {**older.meta, **newer.meta} if older.meta or newer.meta else NO_META,
    )


def _merge_not_before(existing: Entry, incoming: Entry) -> tuple[int, bool]:
    if existing.floor and incoming.floor:
        return max(existing.not_before_us, incoming.not_before_us), True
    if existing.floor:
        return existing.not_before_us, True
    if incoming.floor:
        return incoming.not_before_us, True
    return min(existing.not_before_us, incoming.not_before_us), False  # 0, none, is the earliest
