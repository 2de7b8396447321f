"""How long a key waits before its next attempt."""

from __future__ import annotations

from datetime import timedelta

import pytest

from workqueue.backoff import backoff_for, bare_requeue_delay, exponential


def test_the_default_doubles_from_thirty_seconds_to_ten_minutes() -> None:
    waits = [exponential(attempts, lambda: 0.0).total_seconds() for attempts in range(1, 8)]

    assert waits == [30, 60, 120, 240, 480, 600, 600]


@pytest.mark.parametrize("attempts", [0, -1, 10**6, 2**63])
def test_no_number_of_attempts_breaks_the_curve(attempts: int) -> None:
    assert timedelta(seconds=30) <= exponential(attempts, lambda: 0.0) <= timedelta(minutes=10)


def test_jitter_adds_less_than_half() -> None:
    assert exponential(1, lambda: 0.5) == timedelta(seconds=37.5)
    assert exponential(9, lambda: 0.999) < timedelta(minutes=15)


def test_keys_that_failed_together_are_spread() -> None:
    assert len({exponential(3) for _ in range(20)}) > 1


def test_a_hook_replaces_the_default() -> None:
    assert backoff_for(4, lambda attempts: timedelta(seconds=attempts)) == timedelta(seconds=4)


@pytest.mark.parametrize("answer", [None, timedelta(0), -timedelta(seconds=1)])
def test_a_hook_without_a_positive_answer_leaves_the_default(answer: timedelta | None) -> None:
    assert timedelta(seconds=30) <= backoff_for(1, lambda attempts: answer) < timedelta(seconds=45)


@pytest.mark.parametrize(
    ("priority", "attempts", "seconds"),
    [(-5, 9, 0), (0, 9, 0), (1, 0, 0), (1, 1, 30), (1, 19, 570), (1, 20, 600), (100, 99, 600)],
)
def test_a_bare_requeue_waits_only_above_priority_zero(priority: int, attempts: int, seconds: int) -> None:
    assert bare_requeue_delay(priority, attempts) == timedelta(seconds=seconds)
