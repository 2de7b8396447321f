"""A request as it is stored: it comes back as it went in, and whatever else lies there is no request."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.relay.request import HEAD_BYTES, RelayedRequest, UnreadableRequestError, new_id, repeatable_id
from dispatcher.relay.target import Target
from tests.support.odd_json import with_odd_values
from workqueue.key import validate_key

B = Target("http", "b", 8080)
REQUEST = RelayedRequest("POST", B, "/orders?id=1", [("a", "b")], b"body", timedelta(seconds=10), 1)
LATIN = st.text(st.characters(max_codepoint=255))


@given(path=LATIN, headers=st.lists(st.tuples(LATIN, LATIN)), body=st.binary())
def test_a_stored_request_comes_back_as_it_was(path: str, headers: list[tuple[str, str]], body: bytes) -> None:
    request = replace(REQUEST, path=path, headers=headers, body=body, repeatable=True)

    assert RelayedRequest.from_payload(request.to_payload()) == request


@pytest.mark.parametrize(
    "payload", [b"", b"\n", b"null\n", b"[]\n", b"{}\n", b'{"v":2}\n', b'{"v":1}\n', b"\xff", b"[" * 100_000]
)
def test_what_is_no_request_is_given_up_with_a_reason(payload: bytes) -> None:
    with pytest.raises(UnreadableRequestError):
        RelayedRequest.from_payload(payload)


def test_a_stored_request_with_a_value_of_another_kind_is_read_or_given_up_and_raises_nothing_else() -> None:
    head, _, body = REQUEST.to_payload().partition(b"\n")
    read = 0
    for odd in with_odd_values(head):
        try:
            request = RelayedRequest.from_payload(odd + b"\n" + body)
        except UnreadableRequestError:
            continue
        read += 1
        assert (request.shown, len(request.fingerprint), f"{request.target}") != ("", 0, "")
    assert 0 < read < 60


@pytest.mark.parametrize(("name", "value"), [("a", ""), ("a", "\xff" * 5), ("a", "\t" * 7), ("a", '"' * 7)])
def test_the_most_headers_that_a_server_takes_fit_beside_the_body(name: str, value: str) -> None:
    number = 16 * 1024 // (len(name) + len(value) + len(":\r\n"))
    request = replace(REQUEST, headers=[(name, value)] * number, body=b"")

    assert len(request.to_payload()) <= HEAD_BYTES


def test_the_fingerprint_is_that_of_what_is_asked_for() -> None:
    again = replace(REQUEST, received_us=2, headers=[("date", "now")])
    others = [
        replace(REQUEST, method="PUT"),
        replace(REQUEST, path="/orders?id=2"),
        replace(REQUEST, body=b"else"),
        replace(REQUEST, target=Target("https", "b", 8080)),
    ]

    assert again.fingerprint == REQUEST.fingerprint
    assert len({each.fingerprint for each in [REQUEST, *others]}) == 5


def test_ids_begin_with_their_target_and_are_keys() -> None:
    longest = Target("http", ".".join(["a" * 63] * 3 + ["b" * 61]), 65535)

    assert new_id(B) != new_id(B)
    assert validate_key(new_id(longest)).startswith(f"{longest.name}/")
    assert repeatable_id(B, "x") == repeatable_id(B, "x")
    assert len({repeatable_id(B, "x"), repeatable_id(B, "y"), repeatable_id(Target("http", "c", 8080), "x")}) == 3


def test_logs_show_no_query() -> None:
    assert REQUEST.shown == "POST /orders"
