"""What the relay reads of a request's headers, and what it passes on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dispatcher.relay.errors import RefusedRequestError
from dispatcher.relay.headers import forwarded, idempotency_key, target_of, timeout_of, trace_of
from dispatcher.relay.target import Target

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("name", ["x-dispatcher-original-host", "x-dispatcher-origin-host"])
def test_either_spelling_names_the_target(name: str) -> None:
    assert target_of([(name, " http://b:8080 ")]) == Target("http", "b", 8080)


def test_both_spellings_may_come_if_they_say_the_same() -> None:
    both = [("x-dispatcher-original-host", "http://b"), ("x-dispatcher-origin-host", "http://b")]

    assert target_of(both) == Target("http", "b", 80)


@pytest.mark.parametrize(
    "headers",
    [
        [("x-dispatcher-original-host", "http://b"), ("x-dispatcher-origin-host", "http://c")],
        [("x-dispatcher-original-host", "http://b"), ("x-dispatcher-original-host", "http://c")],
        [("x-dispatcher-original-host", "http://b/path")],
        [("x-dispatcher-original-host", "")],
    ],
)
def test_a_target_that_is_none_or_not_the_only_one_is_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(RefusedRequestError) as raised:
        target_of(headers)

    assert (raised.value.status, raised.value.code) == (400, "target")


def test_a_request_without_the_header_names_no_target() -> None:
    assert target_of([("host", "b")]) is None


def test_headers_go_on_as_they_came_less_those_of_the_connection_and_the_relays_own() -> None:
    kept = [("content-type", "text/plain"), ("cookie", "a=1"), ("cookie", "b=2"), ("traceparent", "00-1-2-01")]
    dropped = [
        ("host", "relay"),
        ("connection", "keep-alive, X-Hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "Basic x"),
        ("content-length", "3"),
        ("expect", "100-continue"),
        ("accept-encoding", "gzip"),
        ("x-dispatcher-original-host", "http://b"),
        ("x-dispatcher-timeout", "100"),
        ("x-dispatcher-anything", "1"),
    ]

    assert forwarded([*dropped[:7], *kept, *dropped[7:]], drop_authorization=False) == kept


def test_authorization_goes_to_whom_it_is_meant_for() -> None:
    headers = [("authorization", "Bearer relay"), ("accept", "*/*")]

    assert forwarded(headers, drop_authorization=False) == headers
    assert forwarded(headers, drop_authorization=True) == [("accept", "*/*")]


@pytest.mark.parametrize("drop", [True, False])
def test_a_request_can_bring_an_authorization_for_its_target(*, drop: bool) -> None:
    headers = [("authorization", "Bearer relay"), ("x-dispatcher-authorization", "Bearer target")]

    assert forwarded(headers, drop_authorization=drop) == [("authorization", "Bearer target")]


def test_a_timeout_is_milliseconds_and_the_default_where_none_is_said() -> None:
    assert timeout_of([("x-dispatcher-timeout", "250")], SECOND) == timedelta(milliseconds=250)
    assert timeout_of([], SECOND) == SECOND


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "soon", "", "3600001", "9" * 40, "٣"])
def test_a_timeout_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(RefusedRequestError, match="milliseconds"):
        timeout_of([("x-dispatcher-timeout", text)], SECOND)


def test_an_idempotency_key_is_the_callers_own_or_none() -> None:
    assert idempotency_key([("idempotency-key", " abc ")]) == "abc"
    assert idempotency_key([]) == ""


@pytest.mark.parametrize("trace", [f"00-{'a' * 32}-{'b' * 16}-01", "", "00-1-2-01", f"00-{'A' * 32}-{'b' * 16}-01"])
def test_a_trace_travels_with_the_key_if_it_is_one(trace: str) -> None:
    expected = {"traceparent": trace} if trace.startswith("00-aaaa") else {}

    assert trace_of([("traceparent", trace)]) == expected
    assert trace_of([]) == {}
