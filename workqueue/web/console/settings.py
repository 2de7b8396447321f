"""What whoever runs a console decides about it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from workqueue.errors import InvalidSettingError
from workqueue.options import check_time

__all__ = ["ConsoleSettings"]


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """How a console behaves.

    Args:
        read_only: nobody may act, whoever they are.
        trace_link: where a trace is shown, an http(s) URL with `{trace_id}` in it; '' = ids are no links.
        public_url: where browsers reach it, where a proxy stands in between: scheme, host and path; '' = as asked.
        trusted_proxies: addresses whose X-Forwarded-Proto, -Host and -Prefix count.
        hosts: host names that browsers may ask for; empty = any. Where no login guards a console it should be that of
            loopback alone: else a page whose name is pointed at 127.0.0.1 could operate the queue.
        sample_period: how often counts are taken for the charts of the last hour; 1 s or more.
        session_lasts: how long a login is good for.

    Raises:
        InvalidSettingError: one of them is out of range; the message names it.
    """

    read_only: bool = False
    trace_link: str = ""
    public_url: str = ""
    trusted_proxies: Collection[str] = ()
    hosts: Collection[str] = ()
    sample_period: timedelta = timedelta(seconds=5)
    session_lasts: timedelta = timedelta(hours=8)

    def __post_init__(self) -> None:
        check_time("session_lasts", self.session_lasts, allow_zero=False)
        if self.sample_period < timedelta(seconds=1):
            raise InvalidSettingError(f"sample_period is 1 s or more, not {self.sample_period!r}")
        if self.trace_link and not (_is_web(self.trace_link) and "{trace_id}" in self.trace_link):
            raise InvalidSettingError("trace_link takes an http(s) URL with {trace_id} in it")
        if self.public_url and (not _is_web(self.public_url) or urlsplit(self.public_url).query):
            raise InvalidSettingError("public_url takes an http(s) URL such as https://ops.example.com/console")


def _is_web(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)
