"""Stage 1: one schedule: its definition, how it is kept in a payload, and which of its ticks are due (pure)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, get_args

from workqueue.clock import LATEST_US, duration_us, from_us
from workqueue.errors import InvalidSettingError, UnsupportedError
from workqueue.key import validate_key
from workqueue.options import Options, check_type, no_meta
from workqueue.sources.schedules.ticks import Ticks, parse_ticks

__all__ = ["LAST_TICK", "MISSED", "SCHEDULED_TIME", "Due", "Missed", "Schedule", "due", "last_tick_us", "noted"]

Missed = Literal["once", "skip", "all"]
"""What becomes of ticks that nobody fired in time: fired once for all of them, not at all, or one after the other."""

MISSED: tuple[str, ...] = get_args(Missed)

LAST_TICK = "last-tick"
"""The name in a schedule's meta that holds its last tick, in microseconds since the epoch."""

SCHEDULED_TIME = "scheduled-time"
"""The name in the meta of the key that is enqueued: the tick, in RFC 3339."""

_VERSION = 1
_KEPT_OTHERWISE = ("name", "payload", "jitter", "_ticks")
_LATE_US = 60_000_000
_COUNTED = 1000  # of more missed ticks than this only the last is looked for
_WINDOWS_US = [seconds * 1_000_000 for seconds in (60, 3600, 86400, 32 * 86400, 367 * 86400, 9 * 366 * 86400)]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Enqueue `key` at every tick.

    Args:
        name: what the schedule is called; a key of the schedules' own queue.
        when: a cron line, `@hourly` …, or `@every 90s` (see `parse_ticks`).
        key: the key that is enqueued, unchanged.
        zone: the IANA time zone that a cron line is read in.
        priority: as in `Options`.
        payload: as in `Options`.
        meta: as in `Options`; it gets the tick as `scheduled-time`.
        jitter: fire up to this long after the tick (0 to 1 day), always the same for one tick.
        missed: what becomes of ticks that nobody fired in time (see `Missed`).
        paused: do not fire; ticks that pass meanwhile are not missed.
        since_us: ticks before this do not count, and an interval is counted from here; set when it is declared.
        removed: it is being removed.

    Raises:
        InvalidSettingError: a value is not what it can be, or the schedule would never fire.
        InvalidKeyError, InvalidOptionsError: the key could not be enqueued as it is.
    """

    name: str
    when: str
    key: str
    zone: str = "UTC"
    priority: int = 0
    payload: bytes | None = None
    meta: Mapping[str, str] = field(default_factory=no_meta)
    jitter: timedelta = timedelta(0)
    missed: Missed = "once"
    paused: bool = False
    since_us: int = 1
    removed: bool = False
    _ticks: Ticks = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        validate_key(self.name)
        validate_key(self.key)
        check_type("since_us", self.since_us, int, "microseconds since the epoch")
        if not 0 <= self.since_us <= LATEST_US:
            raise InvalidSettingError(f"since_us takes microseconds since the epoch up to {LATEST_US}")
        if self.meta:
            self.options(self.since_us)
        else:  # a tick is always as long as another, so that there is room for it
            Options(self.priority, payload=self.payload)
        object.__setattr__(self, "_ticks", parse_ticks(self.when, self.zone, self.since_us))
        if self.missed not in MISSED:
            raise InvalidSettingError(f"missed takes {', '.join(MISSED)}, not {self.missed!r}")
        if not timedelta(0) <= self.jitter <= timedelta(days=1):
            raise InvalidSettingError(f"jitter takes a duration from 0 to 1 day, not {self.jitter}")

    def options(self, tick_us: int) -> Options:
        """What the key is enqueued with at a tick."""
        meta = {**self.meta, SCHEDULED_TIME: _written(tick_us)}
        return Options(self.priority, payload=self.payload, meta=meta)

    def ticks(self) -> Ticks:
        """Its ticks."""
        return self._ticks

    def fires_us(self, tick_us: int) -> int:
        """When a tick is fired: at it, or up to `jitter` later."""
        if not self.jitter:
            return tick_us
        seed = hashlib.blake2b(f"{tick_us}/{self.name}".encode(), digest_size=8).digest()
        return tick_us + int.from_bytes(seed, "big") % duration_us(self.jitter)

    def firings(self, after_us: int) -> Iterator[datetime]:
        """Its firings for ticks after `after_us`, while there are any."""
        for tick_us in _following(self.ticks(), after_us):
            yield from_us(self.fires_us(tick_us))

    def same_as(self, other: Schedule) -> bool:
        """Whether both say the same, apart from what changes without being redefined."""
        return replace(self, since_us=1, paused=False) == replace(other, since_us=1, paused=False)

    def to_payload(self) -> bytes:
        """The definition as it is kept."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _KEPT_OTHERWISE}
        payload = None if self.payload is None else base64.b64encode(self.payload).decode()
        kept = {**values, "meta": dict(self.meta), "payload_base64": payload, "jitter_us": duration_us(self.jitter)}
        return json.dumps({"version": _VERSION, **kept}).encode()

    @classmethod
    def from_payload(cls, name: str, payload: bytes) -> Schedule:
        """The schedule that is kept in `payload`.

        Raises:
            UnsupportedError: a later release wrote it.
            InvalidSettingError: it is no schedule.
        """
        try:
            kept: dict[str, Any] = json.loads(payload)
            version = kept.pop("version")
            if version == _VERSION:
                encoded, jitter = kept.pop("payload_base64"), timedelta(microseconds=kept.pop("jitter_us"))
                return cls(name, payload=encoded and base64.b64decode(encoded), jitter=jitter, **kept)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise InvalidSettingError(f"schedule {name!r} has a definition that cannot be read: {error!r}") from error
        raise UnsupportedError(f"schedule {name!r} was written by a later release (version {version!r}): update this")


# Most schedules tick together: what they say of a tick is made once for many of them.


@lru_cache(maxsize=16)
def _written(tick_us: int) -> str:
    return from_us(tick_us).isoformat()


@lru_cache(maxsize=16)
def noted(last_us: int, look_us: int | None) -> Options:
    """What a schedule's own key is enqueued with: which tick is done with, and when to look again; None = no more."""
    return Options(not_before=None if look_us is None else from_us(look_us), meta={LAST_TICK: str(last_us)})


def last_tick_us(meta: Mapping[str, str]) -> int:
    """The last tick that the meta of a schedule says, in microseconds since the epoch; 0 = none, or no time."""
    text = meta.get(LAST_TICK, "")
    return min(int(text), LATEST_US) if text.isdecimal() and len(text) <= len(str(LATEST_US)) else 0


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done about a schedule now.

    Args:
        tick_us: the tick to fire; None = none.
        last_us: the last tick that is done with then.
        look_us: when to look again; None = there is no further tick.
        missed: how many ticks are passed over.
    """

    tick_us: int | None
    last_us: int
    look_us: int | None
    missed: int = 0


def due(schedule: Schedule, ticks: Ticks, last_us: int, now_us: int, *, begun: bool = False) -> Due:
    """Which tick of `schedule` to fire now.

    Args:
        schedule: the schedule.
        ticks: its ticks.
        last_us: the last tick that is done with.
        now_us: the time.
        begun: somebody began to fire before and did not end: then no tick is too late to be fired.
    """
    passed, coming_us = _passed(schedule, ticks, last_us, now_us)
    if not passed:
        return Due(None, last_us, _look_us(schedule, coming_us))
    if schedule.missed == "all":
        return Due(passed[0], passed[0], _look_us(schedule, passed[1] if len(passed) > 1 else coming_us))
    newest_us = passed[-1]
    if len(passed) == _COUNTED:
        newest_us = _newest(schedule, ticks, newest_us, now_us)
        coming_us = ticks.after(newest_us)
    look_us = _look_us(schedule, coming_us)
    too_late = now_us - schedule.fires_us(newest_us) > _LATE_US
    if schedule.missed == "skip" and too_late and not begun:
        return Due(None, newest_us, look_us, len(passed))
    return Due(newest_us, newest_us, look_us, len(passed) - 1)


def _passed(schedule: Schedule, ticks: Ticks, last_us: int, now_us: int) -> tuple[list[int], int | None]:
    """The ticks after `last_us` that are due, at most `_COUNTED`, and the one that comes after those."""
    passed: list[int] = []
    tick_us = ticks.after(last_us)
    while tick_us is not None and schedule.fires_us(tick_us) <= now_us and len(passed) < _COUNTED:
        passed.append(tick_us)
        tick_us = ticks.after(tick_us)
    return passed, tick_us


def _following(ticks: Ticks, us: int) -> Iterator[int]:
    tick_us = ticks.after(us)
    while tick_us is not None:
        yield tick_us
        tick_us = ticks.after(tick_us)


def _due_ticks(schedule: Schedule, ticks: Ticks, last_us: int, now_us: int) -> Iterator[int]:
    for tick_us in _following(ticks, last_us):
        if schedule.fires_us(tick_us) > now_us:
            return
        yield tick_us


def _newest(schedule: Schedule, ticks: Ticks, known_us: int, now_us: int) -> int:
    """The last tick that is due, without looking at each since `known_us`, which is due."""
    for window_us in _WINDOWS_US:
        start_us = max(now_us - duration_us(schedule.jitter) - window_us, known_us)
        recent = list(_due_ticks(schedule, ticks, start_us, now_us))
        if recent:
            return recent[-1]
    return known_us


def _look_us(schedule: Schedule, tick_us: int | None) -> int | None:
    return None if tick_us is None else schedule.fires_us(tick_us)
