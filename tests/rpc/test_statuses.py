"""What an error is on the wire, both ways: tables of the pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from workqueue.errors import (
    ExpiredError,
    InfrastructureError,
    InvalidKeyError,
    InvalidOptionsError,
    KeyNotFoundError,
    NonRetriableError,
    PayloadTooLargeError,
    QueueClosedError,
    RetryAfterError,
    StoreError,
    StoreUnavailableError,
    StoreUnusableError,
    TargetUnavailableError,
    UnsupportedError,
    WorkQueueError,
)
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.statuses import (
    DETAILS_TRAILER,
    Refusal,
    Trailer,
    from_reconciler,
    marked,
    of_attempt,
    of_enqueue,
)


def failed(code: grpc.StatusCode, text: str, trailers: Sequence[Trailer] = ()) -> grpc.aio.AioRpcError:
    """The error of a call that was answered so."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), text, None)


def received(refusal: Refusal) -> grpc.aio.AioRpcError:
    return failed(refusal.code, refusal.text, refusal.trailers)


def reason_of(error: WorkQueueError | None) -> str | None:
    return error.reason if isinstance(error, NonRetriableError) else None


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
    assert of_enqueue(error).code is code
    assert of_enqueue(error).text == str(error)


def test_a_final_error_has_gos_code_and_details() -> None:
    refusal = of_attempt(NonRetriableError("no such bucket"))

    ((name, encoded),) = refusal.trailers
    status = Status.FromString(encoded if isinstance(encoded, bytes) else b"")
    assert (refusal.code, refusal.text, name) == (grpc.StatusCode.UNKNOWN, "no such bucket", DETAILS_TRAILER)
    assert (status.code, status.message) == (2, "no such bucket")
    assert status.details[0].type_url == "type.googleapis.com/chainguard.workqueue.NoRetryDetails"
    assert reason_of(marked(received(refusal))) == "no such bucket"


def test_a_final_error_sends_its_reason_beside_its_text() -> None:
    refusal = of_attempt(NonRetriableError("no such bucket", "404: not found"))

    assert (refusal.text, reason_of(marked(received(refusal)))) == ("404: not found", "no such bucket")


# The details trailer of a Go reconciler (grpc-go 1.76) for NonRetriableError("boom", "the key is malformed").
GOS_TRAILER = bytes.fromhex(
    "08 02 12 04 626f6f6d 1a 51 0a 37 "
    + b"type.googleapis.com/chainguard.workqueue.NoRetryDetails".hex()
    + "12 16 0a 14"
    + b"the key is malformed".hex()
)


def test_a_final_error_of_gos_is_understood_and_ours_is_the_same_bytes() -> None:
    ((_, ours),) = of_attempt(NonRetriableError("the key is malformed")).trailers

    error = marked(failed(grpc.StatusCode.UNKNOWN, "boom", [(DETAILS_TRAILER, GOS_TRAILER)]))
    assert (str(error), reason_of(error)) == ("boom", "the key is malformed")
    assert ours == GOS_TRAILER.replace(b"\x12\x04boom", b"\x12\x14the key is malformed")


def test_the_presence_of_the_details_counts_not_their_text() -> None:
    packed = Any(type_url="example.com/chainguard.workqueue.NoRetryDetails")
    trailers = [(DETAILS_TRAILER, Status(code=13, message="x", details=[packed]).SerializeToString())]

    assert reason_of(marked(failed(grpc.StatusCode.INTERNAL, "x", trailers))) == "x"


@pytest.mark.parametrize(
    "trailers",
    [
        [],
        [("retry-after", "5")],
        [(DETAILS_TRAILER, b"\xff\xff")],
        [(DETAILS_TRAILER, Status(code=2, message="x").SerializeToString())],
        of_attempt(InfrastructureError("dns")).trailers,
        of_attempt(ValueError("x")).trailers,
    ],
)
def test_any_other_error_may_be_retried(trailers: Sequence[Trailer]) -> None:
    assert marked(failed(grpc.StatusCode.UNKNOWN, "x", trailers)) is None


def test_an_outage_behind_the_reconciler_is_told_from_an_outage_of_the_reconciler() -> None:
    refusal = of_attempt(InfrastructureError(ConnectionError("no route")))

    assert (refusal.code, refusal.text) == (grpc.StatusCode.UNAVAILABLE, "ConnectionError: no route")
    assert from_reconciler(received(refusal))
    assert not from_reconciler(failed(grpc.StatusCode.UNAVAILABLE, "connection refused"))


@pytest.mark.parametrize(
    "raised",
    [
        NonRetriableError("a", "b"),
        ExpiredError("too late"),
        TargetUnavailableError("down"),
        TargetUnavailableError("broke", "broken"),
        RetryAfterError(timedelta(seconds=7, microseconds=5), "busy"),
    ],
    ids=repr,
)
def test_what_a_status_can_say_is_the_same_error_on_the_other_side(raised: WorkQueueError) -> None:
    seen = marked(received(of_attempt(raised)))

    assert (type(seen), str(seen)) == (type(raised), str(raised))
    for said in ("reason", "delay", "trouble"):
        assert getattr(seen, said, None) == getattr(raised, said, None)


@pytest.mark.parametrize(("seconds", "nanos"), [(-5, 0), (0, 0), (2**62, 0), (0, 2**31 - 1)])
def test_a_delay_that_nobody_can_wait_for_is_none(seconds: int, nanos: int) -> None:
    packed = Any()
    packed.Pack(RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos)))
    trailers = [(DETAILS_TRAILER, Status(code=2, details=[packed]).SerializeToString())]

    seen = marked(failed(grpc.StatusCode.UNKNOWN, "busy", trailers))
    assert seen is None or (isinstance(seen, RetryAfterError) and seen.delay < timedelta(seconds=3))


def test_the_longest_delay_fits_on_the_wire() -> None:
    seen = marked(received(of_attempt(RetryAfterError(timedelta.max, "never"))))

    assert isinstance(seen, RetryAfterError)
    assert seen.delay > timedelta(days=36500)


def test_details_that_cannot_be_read_hide_no_others() -> None:
    broken, final = Any(type_url="x/google.rpc.ErrorInfo", value=b"\xff"), Any()
    final.Pack(pb.NoRetryDetails(message="why"))
    trailers = [(DETAILS_TRAILER, Status(code=2, details=[broken, final]).SerializeToString())]

    assert reason_of(marked(failed(grpc.StatusCode.UNKNOWN, "x", trailers))) == "why"


def test_any_other_error_names_its_class() -> None:
    assert of_attempt(ValueError("bad")).text == "ValueError: bad"
    assert of_attempt(ValueError("bad")).code is grpc.StatusCode.UNKNOWN


def test_text_that_is_no_utf_8_does_not_hide_the_error() -> None:
    assert of_attempt(ValueError("a\udc80b")).text == r"ValueError: a\udc80b"


def test_the_trailers_of_the_longest_error_fit_in_a_header() -> None:
    ((_, encoded),) = of_attempt(NonRetriableError("🦊" * 5000)).trailers

    assert len(encoded) < 2200
