"""What a producer may say about a key, and what is refused before anything is stored."""

from __future__ import annotations

import dataclasses
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from workqueue import KeyState, KeyStatus
from workqueue.errors import InvalidOptionsError, PayloadTooLargeError
from workqueue.options import MAX_META_BYTES, MAX_PRIORITY, Options, check_payload


@pytest.mark.parametrize(
    "options",
    [
        {"priority": MAX_PRIORITY},
        {"priority": -MAX_PRIORITY},
        {"not_before": datetime(1, 1, 1, tzinfo=UTC)},
        {"not_before": datetime.max.replace(tzinfo=UTC), "not_before_floor": True},
        {"not_before": datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=-11)))},
        {"payload": b""},
        {"meta": {"n": "x" * (MAX_META_BYTES - 1)}},
        {"meta": {"A.b_c-0": "\n\x00 é"}},
    ],
)
def test_what_is_in_range_is_accepted(options: dict[str, Any]) -> None:
    Options(**options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"priority": MAX_PRIORITY + 1}, "2\\*\\*53"),
        ({"priority": -MAX_PRIORITY - 1}, "2\\*\\*53"),
        ({"priority": 1.0}, "float"),
        ({"priority": True}, "bool"),
        ({"priority": "1"}, "str"),
        ({"not_before": datetime(2030, 1, 1)}, "naive"),  # noqa: DTZ001 - that is what is refused
        ({"not_before": 5}, "int"),
        ({"not_before_floor": True}, "not_before"),
        ({"payload": "text"}, "bytes"),
        ({"payload": bytearray(b"x")}, "bytearray"),
        ({"meta": {"a b": "x"}}, "'a b'"),
        ({"meta": {"": "x"}}, "''"),
        ({"meta": {"é": "x"}}, "é"),
        ({"meta": {"a": 1}}, "str to str"),
        ({"meta": {1: "a"}}, "str to str"),
        ({"meta": {"a": "\ud800"}}, "UTF-8"),
        ({"meta": {"n": "x" * MAX_META_BYTES}}, "1024"),
        ({"meta": {"n": "é" * (MAX_META_BYTES // 2)}}, "1024"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOptionsError, match=told):
        Options(**options)


def test_a_payload_of_just_the_limit_is_accepted() -> None:
    check_payload(bytes(10), 10)
    check_payload(None, 10)


def test_a_payload_beyond_the_limit_is_refused_with_both_sizes() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"11 bytes.*at most 10"):
        check_payload(bytes(11), 10)


def test_no_meta_is_plain_data_for_json_and_pickle() -> None:
    state = KeyState("a", KeyStatus.QUEUED)

    assert json.dumps(dataclasses.asdict(state)["meta"]) == "{}"
    assert pickle.loads(pickle.dumps(state)) == state  # noqa: S301


@pytest.mark.parametrize("change", ["update", "setdefault", "__setitem__"])
def test_no_meta_is_shared_by_all_keys_and_stays_empty(change: str) -> None:
    meta = KeyState("a", KeyStatus.QUEUED).meta

    with pytest.raises(TypeError, match="a dict of your own"):
        getattr(meta, change)("a", "b")
    assert Options().meta == {}
