"""What options, outcomes and errors are on the wire: tables of the pure functions, both directions."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.status_pb2 import Status

from workqueue import (
    InfrastructureError,
    InvalidKeyError,
    InvalidOptionsError,
    KeyNotFoundError,
    KeyState,
    KeyStatus,
    NonRetriableError,
    Options,
    QueueKey,
    QueueKeys,
    RequeueAfter,
    RequeueNotBefore,
    StoreUnavailableError,
    WorkQueueError,
)
from workqueue.clock import from_us
from workqueue.errors import (
    PayloadTooLargeError,
    QueueClosedError,
    StoreError,
    StoreUnusableError,
    UnsupportedError,
)
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.wire import (
    DETAILS_TRAILER,
    cut,
    failure_of,
    from_reconciler,
    key_state_of,
    non_retriable_reason,
    options_of,
    outcome_of,
    refusal_of,
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


@pytest.mark.parametrize("not_before", [0, -1, -62_135_596_800])
def test_a_time_that_is_not_positive_is_none(not_before: int) -> None:
    assert key_state_of(pb.KeyState(key="k", not_before_time=not_before)).not_before is None


def test_a_state_of_a_newer_peer_is_unknown() -> None:
    assert key_state_of(pb.KeyState.FromString(b"\x10\x2a")).status is KeyStatus.UNKNOWN


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidKeyError(), grpc.StatusCode.INVALID_ARGUMENT),
        (InvalidOptionsError(), grpc.StatusCode.INVALID_ARGUMENT),
        (PayloadTooLargeError(), grpc.StatusCode.INVALID_ARGUMENT),
        (KeyNotFoundError(), grpc.StatusCode.NOT_FOUND),
        (StoreUnavailableError(), grpc.StatusCode.UNAVAILABLE),
        (QueueClosedError(), grpc.StatusCode.UNAVAILABLE),
        (StoreUnusableError(), grpc.StatusCode.FAILED_PRECONDITION),
        (UnsupportedError(), grpc.StatusCode.UNIMPLEMENTED),
        (StoreError(), grpc.StatusCode.INTERNAL),
    ],
)
def test_a_receiver_says_what_went_wrong(error: WorkQueueError, code: grpc.StatusCode) -> None:
    assert refusal_of(error).code is code
    assert refusal_of(error).text == str(error)


def test_a_final_error_has_gos_code_and_details() -> None:
    failure = failure_of(NonRetriableError("no such bucket"))

    ((name, encoded),) = failure.trailers
    status = Status.FromString(encoded if isinstance(encoded, bytes) else b"")
    assert (failure.code, failure.text, name) == (grpc.StatusCode.UNKNOWN, "no such bucket", DETAILS_TRAILER)
    assert (status.code, status.message) == (2, "no such bucket")
    assert status.details[0].type_url == "type.googleapis.com/chainguard.workqueue.NoRetryDetails"
    assert non_retriable_reason(failure.trailers) == "no such bucket"


# The details trailer of a Go reconciler (grpc-go 1.76) for NonRetriableError("boom", "the key is malformed").
GOS_TRAILER = bytes.fromhex(
    "08 02 12 04 626f6f6d 1a 51 0a 37 "
    + b"type.googleapis.com/chainguard.workqueue.NoRetryDetails".hex()
    + "12 16 0a 14"
    + b"the key is malformed".hex()
)


def test_a_final_error_of_gos_is_understood_and_ours_is_the_same_bytes() -> None:
    ((_, ours),) = failure_of(NonRetriableError("the key is malformed")).trailers

    assert non_retriable_reason([(DETAILS_TRAILER, GOS_TRAILER)]) == "the key is malformed"
    assert ours == GOS_TRAILER.replace(b"\x12\x04boom", b"\x12\x14the key is malformed")


def test_the_presence_of_the_details_counts_not_their_text() -> None:
    packed = Any(type_url="example.com/chainguard.workqueue.NoRetryDetails")
    trailers = [(DETAILS_TRAILER, Status(code=13, message="x", details=[packed]).SerializeToString())]

    assert non_retriable_reason(trailers) == ""


@pytest.mark.parametrize(
    "trailers",
    [
        None,
        [],
        [("retry-after", "5")],
        [(DETAILS_TRAILER, b"\xff\xff")],
        [(DETAILS_TRAILER, Status(code=2, message="x").SerializeToString())],
        failure_of(InfrastructureError("dns")).trailers,
        failure_of(ValueError("x")).trailers,
    ],
)
def test_any_other_error_may_be_retried(trailers: list[tuple[str, str | bytes]] | None) -> None:
    assert non_retriable_reason(trailers) is None


def test_an_outage_behind_the_reconciler_is_told_from_an_outage_of_the_reconciler() -> None:
    failure = failure_of(InfrastructureError(ConnectionError("no route")))

    assert (failure.code, failure.text) == (grpc.StatusCode.UNAVAILABLE, "ConnectionError: no route")
    assert from_reconciler(failure.trailers)
    assert not from_reconciler(())


def test_any_other_error_names_its_class() -> None:
    assert failure_of(ValueError("bad")).text == "ValueError: bad"
    assert failure_of(ValueError("bad")).code is grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize("text", ["x" * 5000, "é" * 5000, "🦊" * 5000, "a" + "🦊" * 5000])
def test_long_texts_are_cut_at_a_character_and_say_so(text: str) -> None:
    short = cut(text)

    assert 1019 <= len(short.encode()) <= 1024
    assert short.endswith("…")
    assert text.startswith(short[:-1])
    assert cut("x" * 1024) == "x" * 1024


def test_text_that_is_no_utf_8_does_not_hide_the_error() -> None:
    assert failure_of(ValueError("a\udc80b")).text == "ValueError: a?b"


def test_the_trailers_of_the_longest_error_fit_in_a_header() -> None:
    ((_, encoded),) = failure_of(NonRetriableError("🦊" * 5000)).trailers

    assert len(encoded) < 2200
