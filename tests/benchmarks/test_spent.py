"""What a process does with its time is counted and put in words."""

from __future__ import annotations

import os

import pytest

from benchmarks.spent import Count, Shares, cores_idle, count, saturation, shares
from tests.support.processes import python

BUSY = Shares(computes=0.4, waits=0.0, sleeps_a_second=10_000)


def test_shares_are_means_over_processes_of_what_came_between_two_counts() -> None:
    before = [Count(at=10.0, ran=1.0, waited=2.0, sleeps=5), Count(at=10.0, ran=0.0, waited=0.0, sleeps=0)]
    after = [Count(at=12.0, ran=2.0, waited=2.4, sleeps=205), Count(at=12.0, ran=1.0, waited=1.2, sleeps=400)]

    found = shares(before, after)

    assert (found.computes, found.waits, found.sleeps_a_second) == pytest.approx((0.5, 0.4, 150))
    assert str(found) == "computes 50%, waits for its core 40%, asleep 10%: 150 times a second, 667 µs each"


def test_who_never_sleeps_has_no_length_of_a_sleep() -> None:
    assert Shares(computes=1.0, waits=0.1, sleeps_a_second=0).each_us == 0
    assert Shares(computes=1.0, waits=0.1, sleeps_a_second=0).asleep == 0


@pytest.mark.parametrize(
    ("redis", "idle", "full"),
    [
        (Shares(0.93, 0.0, 100), 0.5, "full: Redis's core"),
        (BUSY, 0.02, "full: the dispatchers' core, 98%, they use 0.90"),
        (BUSY, 0.3, "nothing is full: they wait for each other, and their core is idle 30%"),
    ],
    ids=["Redis", "the dispatchers", "nothing"],
)
def test_what_is_full_is_said(redis: Shares, idle: float, full: str) -> None:
    assert f"; {full}; " in saturation(20_000, redis, 0.9, idle)


def test_what_would_fill_redis_is_said() -> None:
    assert saturation(20_000, BUSY, 1.0, 0.0).endswith("40%: it would be full at 50,000/s and 2.5 cores of dispatchers")


def test_a_process_that_waits_for_another_sleeps() -> None:
    before = count(os.getpid())

    python("-c", "")
    after = count(os.getpid())

    assert after.sleeps > before.sleeps
    assert after.ran >= before.ran
    assert 0 < shares([before], [after]).asleep <= 1


def test_idle_seconds_of_cores_add_up() -> None:
    first, *others = os.sched_getaffinity(0)

    assert cores_idle([first]) > 0
    assert cores_idle([first, *others]) >= cores_idle([first])
