"""Which source a message is for: what discriminators say, and that nothing but the order of registration decides."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workqueue.routing import Message, all_of, any_of, field_equals, has_fields, inspect_json
from workqueue.routing.messages.discriminators import Discriminator
from workqueue.routing.messages.matching import Matching

DOCUMENT = {"type": "order", "n": 1, "yes": True, "none": None, "list": [1], "detail": {"kind": "x"}, "a.b": "dotted"}


@pytest.mark.parametrize(
    ("discriminator", "matches"),
    [
        (has_fields("type", "n"), True),
        (has_fields("type", "missing"), False),
        (has_fields("none"), True),
        (has_fields("detail.kind"), True),
        (has_fields("detail.other"), False),
        (has_fields("type.kind"), False),
        (has_fields("a.b"), False),
        (has_fields(("a.b",)), True),
        (has_fields(), True),
        (field_equals("type", "order"), True),
        (field_equals("type", "orders"), False),
        (field_equals("missing", None), False),
        (field_equals("none", None), True),
        (field_equals("n", 1), True),
        (field_equals("n", 1.0), True),
        (field_equals("n", True), False),
        (field_equals("yes", 1), False),
        (field_equals("yes", True), True),
        (field_equals("list", [1]), True),
        (field_equals("detail.kind", "x"), True),
        (all_of(has_fields("type"), field_equals("n", 1)), True),
        (all_of(has_fields("type"), field_equals("n", 2)), False),
        (all_of(), True),
        (any_of(has_fields("missing"), field_equals("n", 1)), True),
        (any_of(has_fields("missing"), field_equals("n", 2)), False),
        (any_of(), False),
        (all_of(has_fields("type"), any_of(field_equals("n", 2), lambda view: view["yes"])), True),
        (lambda view: "detail" in view, True),
    ],
    ids=map(str, range(28)),
)
def test_a_discriminator_says_whether_a_message_is_its_sources(discriminator: Discriminator, matches: bool) -> None:
    view = inspect_json(Message(json.dumps(DOCUMENT).encode()))
    matching: Matching[str] = Matching()
    matching.add(discriminator, "it")

    assert bool(discriminator(view)) is matches
    assert matching.find(view) == ("it" if matches else None)


def test_of_two_that_match_the_one_registered_first_wins_whatever_was_processed_before() -> None:
    either, narrow = has_fields("type"), field_equals("type", "order")
    matching: Matching[str] = Matching()
    matching.add(lambda view: view.get("n") == 2, "custom")
    matching.add(either, "either")
    matching.add(narrow, "narrow")
    plain, special = {"type": "order", "n": 1}, {"type": "order", "n": 2}
    for _ in range(100):
        matching.find(special)

    assert matching.find(plain) == "either"
    assert matching.find(special) == "custom"


names, values = st.sampled_from(["a", "b", "c"]), st.sampled_from([0, 1, 1.0, True, None, "x", [1]])
simple = st.one_of(
    st.builds(field_equals, names, values),
    st.builds(lambda some: has_fields(*some), st.lists(names, max_size=2)),
    st.builds(lambda name, value: lambda view: view.get(name) == value, names, values),
)
discriminators = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.builds(lambda some: all_of(*some), st.lists(inner, max_size=3)),
        st.builds(lambda some: any_of(*some), st.lists(inner, max_size=3)),
    ),
    max_leaves=5,
)


@given(st.lists(discriminators, max_size=8), st.lists(st.dictionaries(names, values), min_size=1, max_size=4))
def test_asking_only_some_sources_finds_the_one_that_asking_each_in_order_would(
    sources: list[Discriminator], documents: list[Mapping[str, Any]]
) -> None:
    matching: Matching[int] = Matching()
    for number, says in enumerate(sources):
        matching.add(says, number)

    for document in documents:
        first = next((number for number, says in enumerate(sources) if says(document)), None)
        assert matching.find(document) == first


def test_a_source_whose_field_a_message_lacks_is_not_asked() -> None:
    asked: list[str] = []

    def noting(name: str) -> Discriminator:
        def says(view: Mapping[str, Any]) -> bool:
            asked.append(name)
            return False

        return says

    matching: Matching[int] = Matching()
    for number in random.Random(1).sample(range(20), 20):
        matching.add(all_of(field_equals("source", f"s{number}"), noting(f"s{number}")), number)

    assert matching.find({"source": "s7"}) is None
    assert asked == ["s7"]
