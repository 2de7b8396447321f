"""What options, outcomes and key states are on the wire: tables of the pure functions, both directions."""

from __future__ import annotations

from datetime import timedelta

import pytest

from workqueue import (
    InvalidKeyError,
    InvalidOptionsError,
    KeyState,
    KeyStatus,
    Options,
    QueueKey,
    QueueKeys,
    RequeueAfter,
    RequeueNotBefore,
)
from workqueue.clock import from_us
from workqueue.errors import UnsupportedError
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.wire import (
    key_state_of,
    options_of,
    outcome_of,
    request_of,
    response_of,
    state_message_of,
    whole_seconds,
)

NOW_US = 1_750_000_000_000_000
NOW = from_us(NOW_US)
INT64 = 2**63 - 1


@pytest.mark.parametrize(
    ("milliseconds", "seconds"), [(-5000, 0), (0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (90_000, 90)]
)
def test_a_delay_is_rounded_up_to_whole_seconds(milliseconds: int, seconds: int) -> None:
    assert whole_seconds(timedelta(milliseconds=milliseconds)) == seconds


def test_everything_that_an_enqueue_says_travels() -> None:
    options = Options(priority=-7, not_before=NOW + timedelta(seconds=30), payload=b"p", meta={"a": "b"})

    assert options_of(request_of("k", options, NOW_US), NOW_US) == options


def test_a_not_before_that_has_passed_is_none() -> None:
    options = Options(not_before=NOW - timedelta(seconds=1))

    assert request_of("k", options, NOW_US).delay_seconds == 0


@pytest.mark.parametrize("delay", [0, -1, -(2**63)])
def test_a_delay_that_is_not_positive_is_none(delay: int) -> None:
    assert options_of(pb.ProcessRequest(key="k", delay_seconds=delay), NOW_US).not_before is None


def test_the_longest_delay_of_the_wire_is_some_time_in_the_far_future() -> None:
    not_before = options_of(pb.ProcessRequest(key="k", delay_seconds=INT64), NOW_US).not_before

    assert not_before is not None
    assert not_before.year > 2300


@pytest.mark.parametrize("priority", [2**53, -(2**53), INT64, -(2**63)])
def test_a_priority_that_a_queue_cannot_order_exactly_is_refused(priority: int) -> None:
    with pytest.raises(InvalidOptionsError, match="2\\*\\*53"):
        options_of(pb.ProcessRequest(key="k", priority=priority), NOW_US)


def test_a_floor_is_refused_instead_of_lost() -> None:
    with pytest.raises(UnsupportedError, match="floor"):
        request_of("k", Options(not_before=NOW, not_before_floor=True), NOW_US)


@pytest.mark.parametrize(
    ("outcome", "response"),
    [
        (None, pb.ProcessResponse()),
        (RequeueAfter(timedelta(seconds=90)), pb.ProcessResponse(requeue_after_seconds=90)),
        (RequeueAfter(timedelta(milliseconds=1)), pb.ProcessResponse(requeue_after_seconds=1)),
        (RequeueNotBefore(timedelta(hours=9)), pb.ProcessResponse(requeue_after_seconds=3600, requeue_floor=True)),
        (QueueKeys(), pb.ProcessResponse()),
        (
            QueueKeys(QueueKey("a", 2, timedelta(seconds=1.5), b"p"), QueueKey("b", delay=timedelta(0))),
            pb.ProcessResponse(
                queue_keys=[
                    pb.QueueKeyRequest(key="a", priority=2, delay_seconds=2, payload=b"p"),
                    pb.QueueKeyRequest(key="b"),
                ]
            ),
        ),
    ],
)
def test_an_outcome_becomes_a_response(outcome: object, response: pb.ProcessResponse) -> None:
    assert response_of(outcome) == response


@pytest.mark.parametrize("nonsense", [True, 0, "done", RequeueAfter, ValueError("x")])
def test_what_is_no_outcome_is_refused(nonsense: object) -> None:
    with pytest.raises(TypeError, match="a callback returns"):
        response_of(nonsense)


def test_a_requeue_wins_over_keys_to_queue() -> None:
    response = pb.ProcessResponse(requeue_after_seconds=5, queue_keys=[pb.QueueKeyRequest(key="c")])

    outcome = outcome_of(response)

    assert isinstance(outcome, RequeueAfter)
    assert not isinstance(outcome, RequeueNotBefore)
    assert outcome.delay == timedelta(seconds=5)


@pytest.mark.parametrize("seconds", [0, -1, -(2**63)])
def test_without_a_positive_delay_a_floor_means_nothing(seconds: int) -> None:
    assert outcome_of(pb.ProcessResponse(requeue_after_seconds=seconds, requeue_floor=True)) is None


def test_a_floor_and_the_longest_delay_are_understood() -> None:
    outcome = outcome_of(pb.ProcessResponse(requeue_after_seconds=INT64, requeue_floor=True))

    assert isinstance(outcome, RequeueNotBefore)
    assert outcome.next_delay() == timedelta(hours=1)


def test_keys_to_queue_are_read_with_their_options() -> None:
    child = pb.QueueKeyRequest(key="c", priority=3, delay_seconds=4, payload=b"p")

    outcome = outcome_of(pb.ProcessResponse(queue_keys=[child, pb.QueueKeyRequest(key="d", delay_seconds=-1)]))

    assert isinstance(outcome, QueueKeys)
    assert outcome.keys == (QueueKey("c", 3, timedelta(seconds=4), b"p"), QueueKey("d"))


def test_a_response_that_asks_for_an_impossible_key_is_refused() -> None:
    with pytest.raises(InvalidKeyError):
        outcome_of(pb.ProcessResponse(queue_keys=[pb.QueueKeyRequest(key="")]))


def test_a_state_travels_in_unix_seconds_with_its_not_before_rounded_up() -> None:
    later = NOW + timedelta(milliseconds=1500)
    state = KeyState("k", KeyStatus.IN_PROGRESS, 5, 3, queued_time=NOW, not_before=later)

    message = state_message_of(state)

    assert (message.queued_time, message.not_before_time) == (1_750_000_000, 1_750_000_002)
    assert key_state_of(message).status is KeyStatus.IN_PROGRESS
    assert key_state_of(message).not_before == NOW + timedelta(seconds=2)


def test_a_state_says_why_the_key_failed_and_since_when_it_runs() -> None:
    expires = NOW + timedelta(milliseconds=1500)
    state = KeyState("k", KeyStatus.IN_PROGRESS, last_error="boom", attempt_began=NOW, lease_expires=expires)

    found = key_state_of(state_message_of(state))

    assert (found.last_error, found.attempt_began) == ("boom", NOW)
    assert found.lease_expires == NOW + timedelta(seconds=2)


def test_a_state_of_a_dead_letter_says_at_most_512_bytes_of_why() -> None:
    found = key_state_of(state_message_of(KeyState("k", KeyStatus.DEAD_LETTER, error="x" * 4000)))

    assert found.last_error == "x" * 509 + "…"


@pytest.mark.parametrize("not_before", [0, -1, -62_135_596_800])
def test_a_time_that_is_not_positive_is_none(not_before: int) -> None:
    assert key_state_of(pb.KeyState(key="k", not_before_time=not_before)).not_before is None


def test_a_state_of_a_newer_peer_is_unknown() -> None:
    assert key_state_of(pb.KeyState.FromString(b"\x10\x2a")).status is KeyStatus.UNKNOWN
