"""Stage 2: queue URLs: `scheme://place?name=builds&lease=15s`. Every setting is typed; an unknown one is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import TypeVar
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from workqueue.clock import Clock
from workqueue.errors import InvalidOptionsError, InvalidSettingError
from workqueue.fallbacks import FullQueue
from workqueue.lease import DEFAULT_LEASE, LeaseTimes
from workqueue.optional import offers
from workqueue.options import MAX_PAYLOAD_BYTES, check_type
from workqueue.safe_text import shown_setting, shown_url

__all__ = ["QueueURL", "duration", "open_queue", "size", "switch", "url_beside", "url_with"]

# scheme -> its module, which has `open_url(url, *, clock, owner)`
_BACKENDS = {
    "memory": "workqueue.backends.memory.backend",
    "sqlite": "workqueue.backends.sqlite.backend",
    "redis": "workqueue.backends.redis.backend",
    "rediss": "workqueue.backends.redis.backend",
    "redis+sentinel": "workqueue.backends.redis.backend",
    "redis+unix": "workqueue.backends.redis.backend",
    "redis+cluster": "workqueue.backends.redis.backend",
    "gs": "workqueue.backends.gcs.backend",
}

_RECEIVERS = ("grpc://", "grpcs://")
_LOCAL = ("sqlite", "memory")  # whose paths may have an @
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_LONGEST_NAME = 100
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{_LONGEST_NAME}}}")
_SETTING = re.compile(r"[A-Za-z_]{1,40}")
_T = TypeVar("_T")


def open_queue(url: str, *, clock: Clock | None = None, owner: str = "") -> FullQueue:
    """The queue at `url`, as an async context manager; nothing is connected before it is entered.

    `grpc://receiver:8090` is a producer: a `workqueue.rpc.Client`, with `queue`, `queue_many` and `get`. A dispatcher
    refuses it before it begins.

    Args:
        url: `memory://`, `sqlite:///wq.db`, `redis://host:6379/0?name=builds`, `gs://bucket`; settings in the query.
        clock: where time comes from instead of the store's and the machine's clocks; for tests.
        owner: recorded with the keys that this process starts, and a metric label: few values, never a pid.

    Raises:
        InvalidSettingError: the scheme or a setting is unknown, or a value is not one that it takes.
        InvalidOptionsError: an argument is of another type, such as a path in place of a URL.
        MissingExtraError: the backend's driver is not installed; the message names the extra.
    """
    check_type("open_queue", url, str, "a URL as text, such as sqlite:///wq.db")
    check_type("owner", owner, str, "text")
    if clock is not None and not offers(clock, Clock):
        raise InvalidOptionsError(f"clock takes a Clock, such as SystemClock(), not a {type(clock).__name__}")
    if url.startswith(_RECEIVERS):
        connect = import_module("workqueue.rpc.client").connect
        producer: FullQueue = connect(url, clock=clock)
        return producer
    parsed = QueueURL.parse(url)
    backend = import_module(_BACKENDS[parsed.scheme])
    queue: FullQueue = backend.open_url(parsed, clock=clock, owner=owner)
    return queue


@dataclass
class QueueURL:
    """A parsed queue URL. A backend takes the settings it knows, then calls `finish()`, which refuses what is left."""

    scheme: str
    parts: SplitResult
    settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: str) -> QueueURL:
        """Split `url`.

        Raises:
            InvalidSettingError: it is no queue URL, or a setting comes twice.
        """
        try:
            parts = urlsplit(url)
        except ValueError as error:  # whose text quotes the URL, password and all
            raise InvalidSettingError(
                "the queue URL cannot be read: percent-encode [ and ] and characters that are no ASCII in its user, "
                "password and host"
            ) from error
        if parts.scheme not in _BACKENDS or "://" not in url:
            known = ", ".join(f"{scheme}://" for scheme in _BACKENDS)
            raise InvalidSettingError(f"{shown_url(url)!r} is no queue URL; it starts with one of {known}")
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        settings = dict(pairs)
        if len(settings) != len(pairs):
            raise InvalidSettingError(f"a setting comes twice in {shown_url(url)!r}")
        if _has_late_userinfo(parts):
            raise InvalidSettingError(
                f"{shown_url(url)!r} has an @ where none belongs: percent-encode / ? # and @ in its password"
            )
        return cls(parts.scheme, parts, settings)

    def __repr__(self) -> str:
        return f"QueueURL({shown_url(self.parts.geturl())!r})"

    def take(self, name: str, convert: Callable[[str], _T], default: _T) -> _T:
        """Remove and convert one setting.

        Raises:
            InvalidSettingError: `convert` refused it with a ValueError that says what the setting takes.
        """
        text = self.settings.pop(name, None)
        if text is None:
            return default
        try:
            return convert(text)
        except ValueError as error:
            raise InvalidSettingError(f"{shown_setting(name, text)} in the queue URL: {error}") from error

    def name(self) -> str:
        """`name`: which queue within a store; letters, digits, `.`, `_`, `-`. Default `default`."""
        return self.take("name", _name, "default")

    def lease_times(self, default: LeaseTimes = DEFAULT_LEASE) -> LeaseTimes:
        """`lease` and `renew`: how long a lease lasts, and how often it is renewed (default: a third of it)."""
        lasts = self.take("lease", duration, default.duration)
        every = self.take("renew", duration, default.renew_every if lasts == default.duration else lasts / 3)
        return LeaseTimes(lasts, every)

    def timeout(self, name: str, default: timedelta, lease: LeaseTimes) -> timedelta:
        """A setting for how long a call of the store may take, by default `default` or what `lease` allows.

        Raises:
            InvalidSettingError: it is more than that: a start could be answered when its lease is no good any more, so
                that its key would be lost, and run again, each time the store is slow.
        """
        most = timedelta(microseconds=lease.good_for_us)
        wanted = self.take(name, duration, min(default, most))
        if wanted > most:
            raise InvalidSettingError(
                f"{name}={wanted.total_seconds():g}s in the queue URL: it takes at most nine tenths of the lease, "
                f"{most.total_seconds():g}s with lease={lease.duration.total_seconds():g}s"
            )
        return wanted

    def max_payload(self) -> int:
        """`max_payload`: the largest payload accepted, such as `64KiB`."""
        return self.take("max_payload", size, MAX_PAYLOAD_BYTES)

    def finish(self) -> None:
        """Refuse settings that nobody took."""
        if not self.settings:
            return
        if "" in self.settings.values():  # no name then: it may be the rest of a password
            raise InvalidSettingError(
                f"{shown_url(self.parts.geturl())!r} has a setting without a value: percent-encode & in a password"
            )
        unknown = ", ".join(name if _SETTING.fullmatch(name) else "***" for name in sorted(self.settings))
        raise InvalidSettingError(f"{self.scheme}:// has no setting {unknown}; docs/backends.md lists them")


def _has_late_userinfo(parts: SplitResult) -> bool:
    """Whether a password has ended the host too early, so that errors about what follows would show its rest."""
    if parts.scheme in _LOCAL or "@" in parts.netloc:
        return False
    return "@" in parts.path + parts.fragment or ("@" in parts.query and "=" not in parts.query)


def url_beside(url: str, suffix: str) -> str:
    """The URL of a queue beside the one at `url`: that with `suffix` at its name, or at its prefix in a bucket.

    Raises:
        InvalidSettingError: the name would be longer than a name may be.
    """
    place, _, query = url.partition("?")
    if place.startswith("gs://"):  # a bucket holds one queue; a prefix makes it several
        return f"{place.rstrip('/')}/{suffix}" + (f"?{query}" if query else "")
    name = f"{dict(parse_qsl(query, keep_blank_values=True)).get('name', 'default')}.{suffix}"
    if len(name) > _LONGEST_NAME:
        raise InvalidSettingError(f"the queue's name is too long for {suffix} beside it: {name!r}")
    return url_with(url, "name", name)


def url_with(url: str, setting: str, value: object) -> str:
    """`url` with a setting in its query, in place of what it says there."""
    place, _, query = url.partition("?")
    return f"{place}?{urlencode({**dict(parse_qsl(query, keep_blank_values=True)), setting: str(value)})}"


def duration(text: str) -> timedelta:
    """`500ms`, `15s`, `5m`, `1h`, `1d`; more than zero. Raises ValueError."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", text)
    try:
        wanted = timedelta(seconds=float(found[1]) * _UNITS[found[2]]) if found else timedelta(0)
    except OverflowError:
        raise ValueError("it takes a duration that ends within the next million years") from None
    if not wanted:
        raise ValueError("it takes a duration above zero such as 500ms, 15s, 5m or 1h")
    return wanted


def size(text: str) -> int:
    """`1024`, `64KiB`, `1MiB`. Raises ValueError."""
    found = re.fullmatch(r"([0-9]+)(KiB|MiB|GiB)?", text)
    if not found:
        raise ValueError("it takes a number of bytes such as 4096, 64KiB or 1MiB")
    return int(found[1]) * _SIZES[found[2] or ""]


def switch(text: str) -> bool:
    """`true` or `false`. Raises ValueError."""
    if text not in ("true", "false"):
        raise ValueError("it takes true or false")
    return text == "true"


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("it takes 1 to 100 letters, digits, '.', '_' or '-'")
    return text
