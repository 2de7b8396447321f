"""What a callback may answer refuses nonsense where it is made: there the traceback points at the mistake."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import timedelta

import pytest

from workqueue.errors import InvalidKeyError, InvalidOptionsError
from workqueue.options import MAX_PRIORITY
from workqueue.outcomes import MAX_FLOOR, Outcome, QueueKey, QueueKeys, RequeueAfter, RequeueNotBefore

ZERO, SECOND = timedelta(0), timedelta(seconds=1)


@pytest.mark.parametrize("outcome", [RequeueAfter, RequeueNotBefore])
@pytest.mark.parametrize(("delay", "jitter"), [(ZERO, ZERO), (-SECOND, ZERO), (ZERO, SECOND), (SECOND, -SECOND)])
def test_a_requeue_that_would_not_wait_is_refused(
    outcome: type[RequeueAfter], delay: timedelta, jitter: timedelta
) -> None:
    with pytest.raises(ValueError, match=r"delay is more than zero|jitter is not negative"):
        outcome(delay, jitter)


def test_a_floor_is_capped_jitter_included() -> None:
    assert RequeueNotBefore(MAX_FLOOR - SECOND, jitter=MAX_FLOOR * 1000).next_delay() <= MAX_FLOOR


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (lambda: QueueKey(""), InvalidKeyError),
        (lambda: QueueKey("a\n"), InvalidKeyError),
        (lambda: QueueKey("a", priority=MAX_PRIORITY + 1), InvalidOptionsError),
        (lambda: QueueKey("a", delay=-SECOND), InvalidOptionsError),
    ],
    ids=["no key", "a control character", "a priority out of range", "a negative delay"],
)
def test_a_key_that_could_not_be_queued_is_refused(made: Callable[[], QueueKey], error: type[ValueError]) -> None:
    with pytest.raises(error):
        made()


@pytest.mark.parametrize("delay", [None, ZERO, SECOND])
def test_a_key_may_be_asked_for_at_once_or_later(delay: timedelta | None) -> None:
    assert QueueKey("a", delay=delay).delay == delay


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (RequeueAfter(SECOND), RequeueAfter(2 * SECOND)),
        (RequeueAfter(SECOND), RequeueAfter(SECOND, jitter=SECOND)),
        (RequeueAfter(SECOND), RequeueNotBefore(SECOND)),
        (QueueKeys(QueueKey("a"), QueueKey("b")), QueueKeys(QueueKey("b"), QueueKey("a"))),
        (QueueKeys(QueueKey("a")), RequeueAfter(SECOND)),
    ],
    ids=["delay", "jitter", "floor", "order", "kind"],
)
def test_outcomes_that_ask_for_the_same_are_equal_from_another_process_too(one: Outcome, other: Outcome) -> None:
    twin = pickle.loads(pickle.dumps(one))  # noqa: S301

    assert one == twin
    assert len({one, twin, other}) == 2
