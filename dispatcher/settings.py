"""Every number a dispatcher takes, with its default and its range. No environment is read here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TypedDict

from workqueue.backoff import Backoff
from workqueue.errors import InvalidSettingError
from workqueue.optional import LeaseRequest
from workqueue.options import check_time

__all__ = ["MAX_CONCURRENCY", "DispatcherSettings", "SettingsArgs"]

log = logging.getLogger(__name__)

MAX_CONCURRENCY = 100_000


class SettingsArgs(TypedDict, total=False):
    """The fields of `DispatcherSettings` as keyword arguments of `handle`, `handle_async` and `handler`."""

    concurrency: int
    batch_size: int
    max_retry: int
    backoff: Backoff | None
    max_run_time: timedelta
    poll_period: timedelta
    drain_timeout: timedelta
    trigger_period: timedelta
    keep_dropped: bool


@dataclass(frozen=True, slots=True)
class DispatcherSettings:
    """How a dispatcher goes about its queue.

    Args:
        concurrency: start no key beyond this many in progress, over all dispatchers of the queue; 1 to 100,000.
        batch_size: start at most this many keys in one round or one lease step; 0 = as many as `concurrency`.
        max_retry: dead-letter a key whose attempt number this or a later one failed; 0 = never.
        backoff: given the attempts so far, the delay before the next one; where it returns None or a delay that is
            not positive, and where it raises, the default stands: 30 s doubling to 10 min.
        max_run_time: cancel a callback that runs longer; more than 0.
        poll_period: how long the loop sleeps at most, and how old its signs of life may be (three times this).
        drain_timeout: how long running callbacks may go on once the dispatcher drains; 0 = not at all.
        trigger_period: the trigger admits at most one round in this time; 0 = every one.
        keep_dropped: keep a key as a dead letter that fails with `NonRetriableError`, where it would be dropped.

    Raises:
        InvalidSettingError: a value is out of range; the message names the setting.
    """

    concurrency: int = 10
    batch_size: int = 0
    max_retry: int = 0
    backoff: Backoff | None = None
    max_run_time: timedelta = timedelta(hours=1)
    poll_period: timedelta = timedelta(seconds=5)
    drain_timeout: timedelta = timedelta(seconds=20)
    trigger_period: timedelta = timedelta(seconds=1)
    keep_dropped: bool = False

    def __post_init__(self) -> None:
        _check_count("concurrency", self.concurrency, 1)
        _check_count("batch_size", self.batch_size, 0)
        _check_count("max_retry", self.max_retry, 0, 2**31 - 1)
        check_time("max_run_time", self.max_run_time, allow_zero=False)
        check_time("poll_period", self.poll_period, allow_zero=False)
        check_time("drain_timeout", self.drain_timeout)
        check_time("trigger_period", self.trigger_period)
        if self.backoff is not None and not callable(self.backoff):
            raise InvalidSettingError(f"backoff is a function of the attempts so far, not {self.backoff!r}")

    def lease_request(self, limit: int, *, comes_back: bool = False) -> LeaseRequest:
        """What to ask of `lease` with `limit` local slots free; `comes_back`: a loop, which asks again and again."""
        most = min(limit, self.batch_size or self.concurrency)
        return LeaseRequest(most, self.concurrency, self.max_retry, self.backoff and self.chosen_backoff, comes_back)

    def chosen_backoff(self, attempts: int) -> timedelta | None:
        """What the `backoff` hook says; None, which means the default, if there is none or it misbehaves.

        The hook is asked while a failed key is on its way back to the queue, which must not fail because of it.
        """
        if self.backoff is None:
            return None
        try:
            chosen = self.backoff(attempts)
        except (Exception, SystemExit):
            log.exception("the backoff hook raised for attempts=%d; the default backoff is used", attempts)
            return None
        return chosen if isinstance(chosen, timedelta) else None


def _check_count(name: str, value: int, least: int, most: int = MAX_CONCURRENCY) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidSettingError(f"{name} is a whole number from {least} to {most}, not {value!r}")
