"""How often, how long and until when a key may be tried: what its route and its meta say (pure).

A producer puts limits of one key into its meta, where no backend knows them; what the key says wins over its route,
and what neither says is left to the dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from workqueue.backoff import Backoff
from workqueue.errors import InvalidOptionsError
from workqueue.options import Options

__all__ = ["NO_LIMITS", "Limits", "limits_of", "with_limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for the attempts of a key. None: whatever the dispatcher has for all of its keys.

    Args:
        max_retry: dead-letter the key when this attempt or a later one fails; 0 = never. Counts runs, not retries.
        backoff: how long it waits after a failure, given its attempts.
        max_run_time: cancel a callback that runs longer; more than zero.
        deadline: an aware datetime; past it the key is not tried any more, but ends as `expired`.

    Raises:
        InvalidOptionsError: a value is out of range.
    """

    max_retry: int | None = None
    backoff: Backoff | None = None
    max_run_time: timedelta | None = None
    deadline: datetime | None = None

    def __post_init__(self) -> None:
        if self.max_retry is not None and not 0 <= self.max_retry < 2**31:
            raise InvalidOptionsError(f"max_retry is a whole number of 0 or more, not {self.max_retry!r}")
        if self.max_run_time is not None and self.max_run_time <= timedelta(0):
            raise InvalidOptionsError(f"max_run_time is more than zero, not {self.max_run_time}")
        if self.deadline is not None and self.deadline.utcoffset() is None:
            raise InvalidOptionsError("deadline is a naive datetime; give it a time zone, for instance datetime.UTC")


NO_LIMITS = Limits()

_READ: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "max-retry": ("max_retry", int),
    "max-run-time": ("max_run_time", lambda seconds: timedelta(seconds=float(seconds))),
    "deadline": ("deadline", datetime.fromisoformat),
}
"""The names in meta, the limits that they are, and how their text is read."""


def limits_of(route: Limits, meta: Mapping[str, str]) -> Limits:
    """The limits of a key: those in its `meta` over those of its `route`.

    Raises:
        InvalidOptionsError: a limit in `meta` cannot be read.
    """
    if not meta or meta.keys().isdisjoint(_READ):
        return route
    said = {}
    for name, (limit, read) in _READ.items():
        if name in meta:
            try:
                said[limit] = read(meta[name])
            except (ValueError, OverflowError):
                raise InvalidOptionsError(f"the key's {name} is {meta[name]!r}, which cannot be read") from None
    return replace(route, **said)


def with_limits(options: Options, limits: Limits) -> Options:
    """`options` with `limits` in their meta: for a producer who knows how long a key is worth trying.

    Raises:
        InvalidOptionsError: there is a backoff, which is a function and cannot travel; name it in a route instead.
    """
    if limits.backoff is not None:
        raise InvalidOptionsError("a backoff cannot travel with a key; give it to the route of the key's type")
    meta = dict(options.meta)
    for field in fields(limits):
        value = getattr(limits, field.name)
        if value is not None:
            meta[field.name.replace("_", "-")] = _written(value)
    return replace(options, meta=meta)


def _written(value: int | timedelta | datetime) -> str:
    if isinstance(value, timedelta):
        return str(value.total_seconds())
    return value.isoformat() if isinstance(value, datetime) else str(value)
