"""JSON read piece by piece is what `json` reads, and each piece comes with its own text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workqueue.sources.kubernetes.pieces import pieces

scalars = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(
    st.lists(values), st.dictionaries(st.text(), values), st.booleans(), st.sampled_from([None, 2, "\t"]), st.booleans()
)
def test_a_list_is_read_as_json_reads_it(
    items: list[Any], others: dict[str, Any], last: bool, indent: Any, ascii_only: bool
) -> None:
    others.pop("items", None)
    document = {**others, "items": items} if last else {"items": items, **others}
    members: dict[str, Any] = {}

    found = list(pieces(json.dumps(document, indent=indent, ensure_ascii=ascii_only), "items", members))

    assert [value for value, _ in found] == items
    assert [json.loads(text) for _, text in found] == items
    assert members == others


def test_a_member_that_is_no_array_is_one_piece() -> None:
    members: dict[str, Any] = {}

    assert list(pieces(' {"type":"ADDED" , "object": {"a": 1} }\n', "object", members)) == [({"a": 1}, '{"a": 1}')]
    assert members == {"type": "ADDED"}


BROKEN = """\

[]
5
{
{"items"
{"items":
{"items":[
{"items":[1
{"items":[1 2]}
{"items":[1,
{"a" 1}
{"a":1 "b":2}
{"a":1
{5:1}
{}x
<html>"""


@pytest.mark.parametrize("text", BROKEN.split("\n"))
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        list(pieces(text, "items", {}))


def test_what_was_read_before_the_text_breaks_off_is_sound() -> None:
    reading = pieces('{"items":[{"a":1},{"b":2},{"c"', "items", {})
    assert [next(reading)[0], next(reading)[0]] == [{"a": 1}, {"b": 2}]
    with pytest.raises(ValueError, match="Expecting"):
        next(reading)
