"""Retry policies: each a table of delays, and what they take."""

from __future__ import annotations

import random
from datetime import timedelta
from statistics import median
from typing import Any

import pytest

from dispatcher import DispatcherSettings
from workqueue.backoff import exponential
from workqueue.errors import InvalidSettingError
from workqueue.routing import POLICIES, Decorrelated, Fixed, Linear, retry_policy

SECOND = timedelta(seconds=1)


def never() -> float:
    return 0.0


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 1), (1, 1), (2, 2), (3, 3), (5, 5), (6, 5), (10**9, 5)])
def test_a_linear_policy_grows_in_equal_steps_and_stays_at_the_last(attempts: int, seconds: int) -> None:
    assert Linear(5, SECOND, 5 * SECOND)(attempts) == seconds * SECOND


@pytest.mark.parametrize(("rand", "seconds"), [(0.0, 5.0), (0.5, 10.0), (0.99, 14.9)])
def test_a_jitter_is_a_part_of_the_delay_plus_a_random_part_of_it(rand: float, seconds: float) -> None:
    policy = Linear(1, 10 * SECOND, 10 * SECOND, jitter=0.5, rand=lambda: rand)

    assert policy(1).total_seconds() == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("name", "first", "last", "steps"),
    [
        ("linear-1m", 1 * 0.5, 60 * 0.5, 20),
        ("linear-10m", 60 * 0.9, 600 * 0.9, 50),
        ("linear-1h", 600 * 0.9, 3600 * 0.9, 20),
    ],
)
def test_the_named_linear_policies_have_the_steps_that_they_promise(
    name: str, first: float, last: float, steps: int
) -> None:
    policy = POLICIES[name]
    assert isinstance(policy, Linear)
    bare = Linear(policy.steps, policy.first, policy.last, policy.jitter, never)

    assert bare(1).total_seconds() == pytest.approx(first)
    assert bare(steps).total_seconds() == bare(steps + 1).total_seconds() == pytest.approx(last)
    assert bare(steps - 1) < bare(steps)


def test_a_fixed_policy_is_its_list_and_then_its_last_delay() -> None:
    policy = Fixed((SECOND, 5 * SECOND, 2 * SECOND))

    assert [policy(attempts) / SECOND for attempts in (1, 2, 3, 4, 100)] == [1, 5, 2, 2, 2]


@pytest.mark.parametrize(("rand", "seconds"), [(0.0, [1, 1, 1, 1]), (1.0, [3, 9, 27, 60])])
def test_a_decorrelated_delay_lies_between_the_least_and_three_times_the_one_before(
    rand: float, seconds: list[int]
) -> None:
    policy = Decorrelated(SECOND, 60 * SECOND, lambda: rand)

    assert [policy(attempts) / SECOND for attempts in (1, 2, 3, 4)] == seconds


def test_decorrelated_delays_grow_but_never_beyond_the_most() -> None:
    policy = Decorrelated(SECOND, 60 * SECOND, random.Random(1).random)
    delays = {attempts: [policy(attempts).total_seconds() for _ in range(500)] for attempts in (1, 3, 1000)}

    assert median(delays[1]) < median(delays[3]) < median(delays[1000])
    assert all(1 <= delay <= 60 for row in delays.values() for delay in row)


@pytest.mark.parametrize("name", list(POLICIES))
def test_every_named_policy_is_a_backoff_that_a_dispatcher_takes(name: str) -> None:
    settings = DispatcherSettings(backoff=retry_policy(name))

    for attempts in (1, 2, 50, 10**6):
        chosen = settings.chosen_backoff(attempts)
        assert chosen is not None
        assert timedelta(0) < chosen <= timedelta(hours=2)


def test_exponential_is_the_default_of_a_dispatcher() -> None:
    assert retry_policy("exponential") is exponential


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        InvalidSettingError, match=r"'linear-2m'; there are exponential, linear-1m, linear-10m, linear-1h"
    ):
        retry_policy("linear-2m")


@pytest.mark.parametrize(
    ("policy", "args"),
    [
        (Linear, (0, SECOND, SECOND)),
        (Linear, (1, timedelta(0), SECOND)),
        (Linear, (1, 2 * SECOND, SECOND)),
        (Linear, (1, SECOND, SECOND, -1.0)),
        (Fixed, ((),)),
        (Fixed, ((SECOND, timedelta(0)),)),
        (Decorrelated, (timedelta(0), SECOND)),
        (Decorrelated, (2 * SECOND, SECOND)),
    ],
    ids=str,
)
def test_a_policy_that_would_not_wait_is_refused(policy: Any, args: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidSettingError):
        policy(*args)
