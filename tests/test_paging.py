"""Which page is asked for, and what a cursor carries; what pages have is the conformance suite's."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workqueue.errors import InvalidOptionsError
from workqueue.paging import PageRequest, Place, cursor_at

KEYS = st.binary(max_size=1000).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@given(st.integers(-(2**63), 2**63 - 1), KEYS)
def test_a_position_comes_back_from_its_cursor(number: int, key: str) -> None:
    cursor = cursor_at(Place.QUEUED, number, key)

    assert PageRequest(Place.QUEUED, cursor=cursor).position(int, str) == (number, key)
    assert not set(cursor) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def test_the_first_page_has_no_position() -> None:
    assert PageRequest(Place.QUEUED).position(int, str) is None


@pytest.mark.parametrize("limit", [0, -1, 1001, True, 1.0, "10", None])
def test_a_page_has_between_one_and_a_thousand_keys(limit: Any) -> None:
    with pytest.raises(InvalidOptionsError, match="limit"):
        PageRequest(Place.QUEUED, limit)


@pytest.mark.parametrize("limit", [1, 1000])
def test_the_ends_of_that_range_are_fine(limit: int) -> None:
    assert PageRequest(Place.QUEUED, limit).limit == limit


@pytest.mark.parametrize("place", ["queued", "nowhere", None, 3])
def test_a_place_is_a_place_and_no_text(place: Any) -> None:
    with pytest.raises(InvalidOptionsError, match="place"):
        PageRequest(place)


def packed(made_of: object) -> str:
    return urlsafe_b64encode(json.dumps(made_of).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        *(" ", "x", "%00", "[]", "é", "A" * 20_000),
        packed([]),
        packed({}),
        packed(None),
        packed(["queued"]),
        packed(["dead-lettered", 1, "a"]),
        packed(["queued", 1]),
        packed(["queued", 1, "a", 2]),
        packed(["queued", True, "a"]),
        packed(["queued", 1.5, "a"]),
        packed(["queued", 2**63, "a"]),
        packed(["queued", 1, "\ud800"]),
        packed(["queued", "a", 1]),
        urlsafe_b64encode(b"[" * 10_000).decode(),
        urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_a_cursor_that_no_page_gave_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidOptionsError, match="no cursor of a page of queued keys"):
        PageRequest(Place.QUEUED, cursor=cursor).position(int, str)
