"""What becomes of a key whose process died."""

from __future__ import annotations

from datetime import timedelta

import pytest

from workqueue.orphan import orphan_wait

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("attempts", [0, 1])
def test_a_first_death_is_not_held_against_the_key(attempts: int) -> None:
    assert orphan_wait(attempts, max_retry=100) == timedelta(0)


@pytest.mark.parametrize(("attempts", "seconds"), [(2, 60), (3, 120), (2**31 - 1, 600)])
def test_from_the_second_attempt_on_it_waits_as_after_any_failure(attempts: int, seconds: int) -> None:
    wait = orphan_wait(attempts, max_retry=0)

    assert wait is not None
    assert seconds * SECOND <= wait < 1.5 * seconds * SECOND


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_hook_that_returns_more_than_zero_decides(attempts: int) -> None:
    assert orphan_wait(attempts, 0, lambda spent: spent * SECOND) == attempts * SECOND


@pytest.mark.parametrize(("attempts", "max_retry", "is_given_up"), [(1, 1, True), (2, 1, True), (1, 2, False)])
def test_it_is_given_up_after_as_many_attempts_as_allowed(attempts: int, max_retry: int, is_given_up: bool) -> None:
    assert (orphan_wait(attempts, max_retry) is None) is is_given_up


def test_without_a_limit_it_is_never_given_up() -> None:
    assert orphan_wait(10**6, max_retry=0) is not None
