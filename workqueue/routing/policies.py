"""Stage 6: retry policies by name: how long a failed key waits, given its attempts (pure).

Each is a `Backoff`, so that it fits wherever one is taken: `DispatcherSettings(backoff=…)`, `--backoff`, a route.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from types import MappingProxyType

from workqueue.backoff import Backoff, exponential
from workqueue.errors import InvalidSettingError

__all__ = ["POLICIES", "Decorrelated", "Fixed", "Linear", "delay_bounds", "retry_policy"]

_SETTLED = 32  # after 32 retries the spread of a decorrelated delay does not change any more
_SECOND, _MINUTE, _HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Linear:
    """Delays that grow in `steps` equal steps from `first` to `last`, and stay there.

    Args:
        steps: how many; at least 1.
        first: the delay d of the first retry; more than zero.
        last: that of the last step.
        jitter: a retry waits d x jitter + a random part in [0, d). 0 = exactly d.
        rand: returns a float in [0, 1).
    """

    steps: int
    first: timedelta
    last: timedelta
    jitter: float = 0.0
    rand: Callable[[], float] = field(default=random.random, repr=False)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.first <= timedelta(0) or self.last < self.first or self.jitter < 0:
            raise InvalidSettingError(f"{self!r}: steps >= 1, 0 < first <= last and jitter >= 0 are asked")

    def __call__(self, attempts: int) -> timedelta:
        step = min(max(attempts, 1), self.steps) - 1
        delay = self.first + (self.last - self.first) * (step / max(self.steps - 1, 1))
        return delay * self.jitter + delay * self.rand() if self.jitter else delay


@dataclass(frozen=True, slots=True)
class Fixed:
    """A list of delays, one for each retry; the last one stands for all later ones.

    Args:
        delays: at least one, each more than zero.
    """

    delays: tuple[timedelta, ...]

    def __post_init__(self) -> None:
        if not self.delays or min(self.delays) <= timedelta(0):
            raise InvalidSettingError(f"a fixed policy has at least one delay, each more than zero, unlike {self!r}")

    def __call__(self, attempts: int) -> timedelta:
        return self.delays[min(max(attempts, 1), len(self.delays)) - 1]


@dataclass(frozen=True, slots=True)
class Decorrelated:
    """Decorrelated jitter: each delay is random between `least` and three times the one before it, at most `most`.

    A policy knows how many attempts there were but not how long they waited. So it draws the whole row of delays anew
    each time; a single delay is spread as if the real one before it had been used.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    least: timedelta
    most: timedelta
    rand: Callable[[], float] = field(default=random.random, repr=False)

    def __post_init__(self) -> None:
        if not timedelta(0) < self.least <= self.most:
            raise InvalidSettingError(f"{self!r}: 0 < least <= most is asked")

    def __call__(self, attempts: int) -> timedelta:
        delay = self.least
        for _ in range(min(max(attempts, 1), _SETTLED)):
            delay = min(self.most, self.least + (delay * 3 - self.least) * self.rand())
        return delay


POLICIES: Mapping[str, Backoff] = MappingProxyType(
    {
        "exponential": exponential,
        "linear-1m": Linear(20, _SECOND, _MINUTE, 0.5),
        "linear-10m": Linear(50, _MINUTE, 10 * _MINUTE, 0.9),
        "linear-1h": Linear(20, 10 * _MINUTE, _HOUR, 0.9),
        "decorrelated": Decorrelated(_SECOND, 10 * _MINUTE),
    }
)
"""Every policy that has a name. `exponential`, 30 s doubling to 10 min, is what a dispatcher does by default."""


def retry_policy(name: str) -> Backoff:
    """The policy of that name.

    Raises:
        InvalidSettingError: there is none; the message lists them.
    """
    if name not in POLICIES:
        raise InvalidSettingError(f"there is no retry policy {name!r}; there are {', '.join(POLICIES)}")
    return POLICIES[name]


def delay_bounds(name: str, attempts: int) -> tuple[timedelta, timedelta]:
    """The shortest and the longest delay of the policy of that name after N attempts.

    Raises:
        InvalidSettingError: there is no such policy.
    """
    policy = retry_policy(name)

    def drawing(drawn: float) -> timedelta | None:
        if isinstance(policy, Linear | Decorrelated):
            return replace(policy, rand=lambda: drawn)(attempts)
        return partial(exponential, rand=lambda: drawn)(attempts) if policy is exponential else policy(attempts)

    return drawing(0.0) or timedelta(0), drawing(1.0) or timedelta(0)
