"""What holds for the attempts of a single key, where its callback says so, as a router does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from dispatcher.running import CallbackRun
from dispatcher.settings import DispatcherSettings
from workqueue.backoff import Backoff
from workqueue.clock import Clock, duration_us, to_us
from workqueue.interface import OwnedInProgressKey

if TYPE_CHECKING:  # who has no router does not load one
    from workqueue.routing.key_limits import Limits

__all__ = ["CountingCallback", "KeyLimits", "LimitingCallback"]


_NOTHING = (None, None, None)


@runtime_checkable
class LimitingCallback(Protocol):
    """A callback that says what holds for each key, as `workqueue.routing.KeyRouter` does."""

    def limits_of_key(self, key: str, meta: Mapping[str, str]) -> Limits:
        """The limits of this key; called when it is started. Must not raise."""


@runtime_checkable
class CountingCallback(Protocol):
    """A callback that hands keys back before their time, and keeps how often it tried them before, as a relay does."""

    def attempts_before(self, meta: Mapping[str, str]) -> int:
        """How many attempts a key had beside those that the queue counts. Must not raise."""


class KeyLimits:
    """Begins the runs of a callback that limits its keys.

    Args:
        callback: says what holds for each key.
        settings: what holds where it says nothing.
        clock: judges run times and deadlines.
    """

    def __init__(self, callback: LimitingCallback, settings: DispatcherSettings, clock: Clock) -> None:
        self._callback = callback
        self._before = callback.attempts_before if isinstance(callback, CountingCallback) else None
        self._settings = settings
        self._clock = clock

    def attempts_of(self, owned: OwnedInProgressKey) -> int:
        """Which attempt this is in all; the queue counts from its last requeue without a failure."""
        return owned.attempts if self._before is None else owned.attempts + self._before(owned.meta)

    def run(self, owned: OwnedInProgressKey, now_us: int) -> CallbackRun:
        """The run of this key's callback, which begins at the steady time `now_us`."""
        limits = self._callback.limits_of_key(owned.key, owned.meta)
        settings = self._settings
        said = (limits.max_retry, limits.backoff, limits.max_run_time)
        if said != _NOTHING:  # else nothing has to be looked up, by which a key would cost a tenth more
            settings = _limited(settings, *said)
        run = CallbackRun(owned, self._clock, settings, now_us + duration_us(settings.max_run_time))
        if limits.deadline is not None:
            run.expire_at(now_us + to_us(limits.deadline) - self._clock.wall_us())
        return run


@lru_cache(maxsize=1000)  # there are as many as routes, unless keys say limits of their own
def _limited(
    settings: DispatcherSettings, max_retry: int | None, backoff: Backoff | None, max_run_time: timedelta | None
) -> DispatcherSettings:
    return replace(
        settings,
        max_retry=settings.max_retry if max_retry is None else max_retry,
        backoff=settings.backoff if backoff is None else backoff,
        max_run_time=settings.max_run_time if max_run_time is None else max_run_time,
    )
