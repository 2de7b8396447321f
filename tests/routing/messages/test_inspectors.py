"""What inspectors make of a message: a view of JSON and of CloudEvents in both modes, and what is neither."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from workqueue.routing import Message, inspect_cloud_event, inspect_json
from workqueue.routing.messages.inspectors import MISSING, at

EVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.new"}
HEADERS = {f"ce-{name}": value for name, value in EVENT.items()}


def view(document: object) -> Mapping[str, Any]:
    return inspect_json(Message(json.dumps(document).encode()))


def test_a_view_of_json_is_a_mapping_of_its_fields() -> None:
    document = {"a": 1, "b": {"c": [1, 2]}, "d": None}
    seen = view(document)

    assert dict(seen) == document
    assert seen == document
    assert (len(seen), list(seen), list(seen.values())) == (3, ["a", "b", "d"], list(document.values()))
    assert ("d" in seen, "e" in seen, seen.get("e", 7)) == (True, False, 7)


def test_a_field_that_nobody_asks_for_is_not_decoded() -> None:
    seen = inspect_json(Message(b'{"type": "x", "payload": [1, 2, 3]}'))

    assert seen["type"] == "x"
    assert dict.keys(seen) == {"type"}


@pytest.mark.parametrize(
    ("path", "found"),
    [(("a",), 1), (("b", "c"), [1, 2]), (("b.c",), "dotted"), (("a", "b"), MISSING), (("b", "x"), MISSING)],
)
def test_a_path_leads_to_a_field_or_to_nothing(path: tuple[str, ...], found: object) -> None:
    seen = view({"a": 1, "b": {"c": [1, 2]}, "b.c": "dotted"})

    assert at(seen, path) == found


@pytest.mark.parametrize(
    "raw",
    [b"", b"no JSON", b"[1]", b'"text"', b"{}x", b'{"a": }', b'{"a": "\xff"}', b'{"a": [1,,2]}', b"\x00\x01"],
    ids=str,
)
def test_what_is_no_json_object_has_no_view(raw: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        inspect_json(Message(raw))


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


def test_fifty_levels_are_seen_to_their_end() -> None:
    assert at(inspect_json(Message(nested(50))), ("a",) * 50) == 1


def test_a_hundred_thousand_levels_are_refused_and_do_not_end_the_process() -> None:
    with pytest.raises(RecursionError):
        inspect_json(Message(nested(100_000)))


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (Message(json.dumps({**EVENT, "data": {"n": 1}}).encode()), {"n": 1}),
        (Message(json.dumps({**EVENT, "data_base64": "AAE="}).encode()), b"\x00\x01"),
        (Message(b'{"n": 1}', HEADERS), {"n": 1}),
        (Message(b'{"n": 1}', {**HEADERS, "content-type": "application/vnd.shop+json; charset=utf-8"}), {"n": 1}),
        (Message(b"\x00\x01", {**HEADERS, "content-type": "application/octet-stream"}), b"\x00\x01"),
    ],
    ids=["structured", "structured, base64", "binary", "binary, +json", "binary, bytes"],
)
def test_a_cloud_event_has_the_same_fields_in_both_modes(message: Message, data: object) -> None:
    seen = inspect_cloud_event(message)

    assert {name: seen[name] for name in EVENT} == EVENT
    assert seen["data"] == data


def test_extensions_are_fields_and_escapes_in_headers_are_undone() -> None:
    seen = inspect_cloud_event(Message(b"", {**HEADERS, "ce-subject": "caf%C3%A9", "ce-tenant": "a"}))

    assert (seen["subject"], seen["tenant"]) == ("café", "a")


@pytest.mark.parametrize("missing", sorted(EVENT))
def test_an_event_without_a_required_attribute_is_none(missing: str) -> None:
    structured = {name: value for name, value in EVENT.items() if name != missing}
    binary = {name: value for name, value in HEADERS.items() if name != f"ce-{missing}"}

    for message in (Message(json.dumps(structured).encode()), Message(b"{}", binary)):
        with pytest.raises(ValueError, match="a CloudEvent has the attribute"):
            inspect_cloud_event(message)
