"""Starts per second, and the settings that are stored with a queue."""

from __future__ import annotations

from typing import Any

import pytest

from workqueue.errors import InvalidOptionsError
from workqueue.throttle import Configuration, TokenBucket

SECOND_US = 1_000_000


@pytest.mark.parametrize(
    ("rate", "after_us", "saved"),
    [(10.0, SECOND_US // 2, 5.0), (10.0, 60 * SECOND_US, 10.0), (0.5, SECOND_US, 0.5), (0.5, 60 * SECOND_US, 1.0)],
)
def test_a_bucket_fills_with_time_up_to_one_second_of_starts_and_at_least_one(
    rate: float, after_us: int, saved: float
) -> None:
    assert TokenBucket(0.0, 0).refilled(rate, after_us).saved == saved


def test_a_clock_that_went_back_refills_nothing_and_stops_nothing() -> None:
    bucket = TokenBucket(1.0, 100 * SECOND_US).refilled(2.0, 10 * SECOND_US)

    assert bucket == TokenBucket(1.0, 10 * SECOND_US)
    assert bucket.spent(1).refilled(2.0, 11 * SECOND_US).saved == 2.0


def test_what_is_spent_is_gone() -> None:
    assert TokenBucket(5.0, 7).spent(3) == TokenBucket(2.0, 7)


@pytest.mark.parametrize(("saved", "rate"), [(0.0, 2.0), (0.9, 0.1), (-3.0, 7.0), (0.0, 1e-6)])
def test_after_the_wait_one_start_is_saved_up(saved: float, rate: float) -> None:
    bucket = TokenBucket(saved, 0)

    assert bucket.refilled(rate, bucket.wait_us(rate)).saved >= 1
    assert bucket.refilled(rate, bucket.wait_us(rate) - 2).saved < 1


def test_there_is_no_wait_for_what_is_saved_up() -> None:
    assert TokenBucket(1.0, 0).wait_us(5.0) == 0


@pytest.mark.parametrize(("stored", "asked", "limit"), [(None, 7, 7), (3, 7, 3), (9, 7, 7)])
def test_the_lower_concurrency_holds(stored: int | None, asked: int, limit: int) -> None:
    assert Configuration(concurrency=stored).limit(asked) == limit


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"concurrency": -1},
        {"concurrency": 2**31},
        {"starts_per_second": 0},
        {"starts_per_second": -1.0},
        {"starts_per_second": float("inf")},
        {"starts_per_second": float("nan")},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionsError, match=next(iter(wrong))):
        Configuration(**wrong)
