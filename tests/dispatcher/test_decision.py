"""What becomes of a key for whatever its callback answers: the table, as a pure function."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from dispatcher.decision import COMPLETE, Decision, decide, judge
from dispatcher.settings import DispatcherSettings
from workqueue import InfrastructureError, NonRetriableError, QueueKey, QueueKeys, RequeueAfter, RequeueNotBefore
from workqueue.errors import RetryAfterError
from workqueue.metrics import SettleOutcome

MINUTE = timedelta(minutes=1)


class HopelessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("result", "decision"),
    [
        (None, COMPLETE),
        (RequeueAfter(MINUTE), Decision("requeued", delay=MINUTE)),
        (RequeueNotBefore(MINUTE), Decision("requeued", delay=MINUTE, floor=True)),
        (RequeueNotBefore(timedelta(days=1)), Decision("requeued", delay=timedelta(hours=1), floor=True)),
        (QueueKeys(QueueKey("b")), Decision("completed", keys=(QueueKey("b"),))),
        (QueueKeys(), COMPLETE),
    ],
    ids=str,
)
def test_what_a_callback_asks_for_is_done_even_in_its_last_attempt(result: object, decision: Decision) -> None:
    assert judge(result, attempts=5, max_retry=5) == decision


def test_a_jitter_is_added_to_a_requeue_delay() -> None:
    delays = {judge(RequeueAfter(MINUTE, jitter=MINUTE), 1, 0).delay for _ in range(50)}

    assert len(delays) > 1
    assert all(delay is not None and MINUTE <= delay < 2 * MINUTE for delay in delays)


@pytest.mark.parametrize(
    "result", [ValueError("no"), 42, "done", True, NonRetriableError, object(), KeyboardInterrupt()]
)
def test_an_error_or_nonsense_is_tried_again_with_a_backoff(result: object) -> None:
    decision = judge(result, attempts=1, max_retry=3)

    assert decision.outcome == "retried"
    assert decision.delay is not None
    assert timedelta(seconds=30) <= decision.delay < timedelta(seconds=45)
    assert decision.failure is not None
    assert decision.failure.action == "requeued"


@pytest.mark.parametrize(
    ("attempts", "max_retry", "outcome"),
    [(1, 0, "retried"), (10**6, 0, "retried"), (2, 3, "retried"), (3, 3, "dead-lettered"), (4, 3, "dead-lettered")],
)
def test_a_key_is_given_up_once_its_attempts_are_used_up(attempts: int, max_retry: int, outcome: SettleOutcome) -> None:
    assert judge(ValueError(), attempts, max_retry).outcome == outcome


def test_a_non_retriable_error_drops_the_key_and_tells_the_reason() -> None:
    decision = judge(NonRetriableError("no such customer"), attempts=1, max_retry=3)

    assert decision.outcome == "dropped"
    assert decision.failure is not None
    assert (decision.failure.action, decision.failure.reason) == ("dropped", "no such customer")


def test_the_retry_budget_is_checked_before_an_error_is_taken_as_final() -> None:
    assert judge(NonRetriableError("no"), attempts=3, max_retry=3).outcome == "dead-lettered"


def test_infrastructure_errors_are_marked_and_otherwise_like_any_other() -> None:
    decision = judge(InfrastructureError(OSError("down")), attempts=1, max_retry=3)

    assert decision.outcome == "retried"
    assert decision.failure is not None
    assert decision.failure.infrastructure


@pytest.mark.parametrize("chosen", [None, timedelta(0), -MINUTE], ids=str)
def test_a_backoff_hook_that_returns_nothing_positive_leaves_the_default(chosen: timedelta | None) -> None:
    delay = judge(ValueError(), 1, 0, lambda attempts: chosen).delay

    assert delay is not None
    assert delay >= timedelta(seconds=30)


def test_a_backoff_hook_replaces_the_default() -> None:
    assert judge(ValueError(), 4, 0, lambda attempts: attempts * MINUTE).delay == 4 * MINUTE


def test_an_outcome_that_cannot_be_computed_fails_the_attempt() -> None:
    assert judge(RequeueAfter(timedelta.max, jitter=timedelta.max), 1, 0).outcome in ("requeued", "retried")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (HopelessError(), "HopelessError"),
        (asyncio.CancelledError(), "CancelledError"),
        (ValueError("\ud800"), r"ValueError: \ud800"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else ascii(value),
)
def test_an_error_is_described_by_its_class_and_text(error: BaseException, text: str) -> None:
    failure = judge(error, 1, 0).failure

    assert failure is not None
    assert failure.error == text


def test_an_error_text_is_cut_between_characters_at_4_kib() -> None:
    failure = judge(ValueError("€" * 5000), 1, 0).failure

    assert failure is not None
    assert 4090 < len(failure.error.encode()) <= 4096
    assert failure.error.endswith("€…")


def test_an_error_that_says_when_to_try_again_counts_and_is_waited_for() -> None:
    decision = judge(RetryAfterError(MINUTE, ValueError("busy")), attempts=1, max_retry=3)

    assert (decision.outcome, decision.delay) == ("retried", MINUTE)
    assert judge(RetryAfterError(MINUTE, "busy"), attempts=3, max_retry=3).outcome == "dead-lettered"


@pytest.mark.parametrize(("keep", "outcome"), [(False, "dropped"), (True, "dead-lettered")])
def test_a_key_that_cannot_succeed_is_kept_as_a_dead_letter_where_that_is_set(*, keep: bool, outcome: str) -> None:
    settings = DispatcherSettings(keep_dropped=keep)

    decision = decide("answered", NonRetriableError("no"), 1, settings)

    assert decision.failure is not None
    assert (decision.outcome, decision.failure.action, decision.failure.reason) == (outcome, outcome, "no")
