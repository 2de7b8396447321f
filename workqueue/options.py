"""Stage 1: what a producer may say about a key. The merge rule that these options follow is in `rules`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NoReturn

from workqueue.errors import InvalidOptionsError, InvalidSettingError, PayloadTooLargeError
from workqueue.key import validate_key

__all__ = [
    "LAST_ERROR",
    "MAX_META_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_PRIORITY",
    "NO_META",
    "CheckedItems",
    "FailedKey",
    "Options",
    "check_duration",
    "check_options",
    "check_payload",
    "check_time",
    "check_type",
    "checked_items",
    "no_meta",
]

MAX_PRIORITY = 2**53 - 1
MAX_META_BYTES = 1024
MAX_PAYLOAD_BYTES = 256 * 1024

LAST_ERROR = "last-error"
"""The name in a stored meta under which a queued key's last error travels: the queue's own, and never shown as meta."""


class _Nothing(dict[str, str]):
    """A dict, so that `dataclasses.asdict`, pickle and JSON take it; every key has the same, so it stays empty."""

    def _refuse(self, *_args: Any, **_more: Any) -> NoReturn:
        raise TypeError("this meta is that of all keys without any: make a dict of your own")

    __setitem__ = setdefault = update = __ior__ = _refuse


NO_META: Mapping[str, str] = _Nothing()


def no_meta() -> Mapping[str, str]:
    """The shared empty meta, for dataclass defaults."""
    return NO_META


_PAIRS = "pairs of a key and its Options"
_META_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Options:
    """How a key is to be queued; every field may be left out.

    Args:
        priority: higher starts first; |priority| < 2**53.
        not_before: an aware datetime; the key is not started before it.
        not_before_floor: later enqueues without a floor cannot pull `not_before` forward; needs `not_before`.
        payload: bytes kept with the key, at most 256 KiB unless the queue says otherwise.
        meta: names of letters, digits, `.`, `_`, `-` with short text values, 1 KiB in all; `last-error` is taken.

    Raises:
        InvalidOptionsError: a value is out of range; nothing was stored.
    """

    priority: int = 0
    not_before: datetime | None = None
    not_before_floor: bool = False
    payload: bytes | None = None
    meta: Mapping[str, str] = field(default_factory=no_meta)

    def __post_init__(self) -> None:
        _check_priority(self.priority)
        if self.not_before is not None:
            _check_aware(self.not_before)
        elif self.not_before_floor:
            raise InvalidOptionsError("not_before_floor needs a not_before to hold")
        if self.payload is not None and not isinstance(self.payload, bytes):
            raise InvalidOptionsError(f"payload is bytes or None, not {type(self.payload).__name__}")
        if self.meta:
            _check_meta(self.meta)


@dataclass(frozen=True, slots=True)
class FailedKey:
    """An enqueue that is not known to be stored, and why; doing it again is safe."""

    key: str
    options: Options
    error: Exception


def check_type(name: str, value: object, kind: type | tuple[type, ...], takes: str) -> None:
    """Refuse an argument of another type at the door, where its name is known, and not by an error from within.

    Args:
        name: what the argument is called.
        value: what was given; its type is shown and not its text, which may be a password.
        kind: the type that it must have, or one of several; a bool is no number.
        takes: what it takes, in words.

    Raises:
        InvalidOptionsError: it is of another type; nothing was done.
    """
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise InvalidOptionsError(f"{name} takes {takes}, not a {type(value).__name__}")


def check_duration(name: str, value: object) -> None:
    """Refuse a number where a duration belongs: nobody could say whether it is seconds or milliseconds.

    Raises:
        InvalidOptionsError: `value` is no timedelta.
    """
    if not isinstance(value, timedelta):
        raise InvalidOptionsError(f"{name} is a timedelta, such as timedelta(seconds=5), not {value!r}")


def check_time(name: str, value: timedelta, *, allow_zero: bool = True) -> None:
    """Refuse a setting that is no time to wait.

    Raises:
        InvalidSettingError: `value` is no timedelta, is less than zero, or is zero without `allow_zero`.
    """
    if not isinstance(value, timedelta) or value < timedelta(0) or (not value and not allow_zero):
        range_ = "0 or more" if allow_zero else "more than 0"
        raise InvalidSettingError(f"{name} is a timedelta of {range_}, not {value!r}")


def check_payload(payload: bytes | None, limit: int = MAX_PAYLOAD_BYTES) -> None:
    """Refuse a payload of more than `limit` bytes.

    Raises:
        PayloadTooLargeError: it is larger; nothing was stored.
    """
    if payload is not None and len(payload) > limit:
        raise PayloadTooLargeError(f"the payload has {len(payload)} bytes, this queue accepts at most {limit}")


def check_options(options: Options, limit: int = MAX_PAYLOAD_BYTES) -> None:
    """Refuse what is no `Options`, or has a payload of more than `limit` bytes.

    Raises:
        InvalidOptionsError: it is something else, such as a dict; nothing was stored.
        PayloadTooLargeError: nothing was stored.
    """
    if not isinstance(options, Options):
        raise InvalidOptionsError(f"a key takes Options(priority=1, ...), not a {type(options).__name__}")
    check_payload(options.payload, limit)


class CheckedItems(list[tuple[str, Options]]):
    """What `checked_items` need not look at again: each was checked when it was put, by a door that names its caller.

    Args:
        items: keys and options, each of which could be stored by itself.
        limit: the largest payload that was let in, in bytes.
    """

    __slots__ = ("limit",)

    def __init__(self, items: Iterable[tuple[str, Options]], limit: int) -> None:
        super().__init__(items)
        self.limit = limit


def checked_items(items: Iterable[tuple[str, Options]], limit: int = MAX_PAYLOAD_BYTES) -> list[tuple[str, Options]]:
    """What `queue_many` was given, each key and its options checked: one that is invalid refuses them all.

    Raises:
        InvalidKeyError, InvalidOptionsError, PayloadTooLargeError: nothing was stored.
    """
    if type(items) is CheckedItems and items.limit <= limit:
        return items
    check_type("queue_many", items, Iterable, _PAIRS)
    checked = list(items)
    for item in checked:
        check_type("queue_many", item, (tuple, list), _PAIRS)
        if len(item) != 2:
            raise InvalidOptionsError(f"queue_many takes {_PAIRS}, not {len(item)} values")
        validate_key(item[0])
        check_options(item[1], limit)
    return checked


def _check_priority(priority: int) -> None:
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise InvalidOptionsError(f"priority is an int, not {type(priority).__name__}")
    if abs(priority) > MAX_PRIORITY:
        raise InvalidOptionsError(f"priority {priority} is out of range: its absolute value must be below 2**53")


def _check_aware(not_before: datetime) -> None:
    if not isinstance(not_before, datetime):
        raise InvalidOptionsError(f"not_before is a datetime, not {type(not_before).__name__}")
    if not_before.utcoffset() is None:
        raise InvalidOptionsError("not_before is a naive datetime; give it a time zone, for instance datetime.UTC")


def _check_meta(meta: Mapping[str, str]) -> None:
    check_type("meta", meta, Mapping, "names with their text")
    size = 0
    for name, value in meta.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidOptionsError("meta maps str to str")
        if not _META_NAME.fullmatch(name):
            raise InvalidOptionsError(
                f"the meta name {name!r} has characters other than letters, digits, '.', '_', '-'"
            )
        if name == LAST_ERROR:
            raise InvalidOptionsError(f"the meta name {name!r} is the queue's own")
        try:
            size += len(name) + len(value.encode())
        except UnicodeEncodeError:
            raise InvalidOptionsError(f"the meta value of {name!r} is not valid UTF-8") from None
    if size > MAX_META_BYTES:
        raise InvalidOptionsError(f"meta has {size} bytes in all, at most {MAX_META_BYTES} are kept with a key")
