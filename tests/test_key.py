"""Which strings may be keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workqueue.errors import InvalidKeyError
from workqueue.key import MAX_KEY_BYTES, validate_key


@pytest.mark.parametrize(
    "key", ["a", " ", "..", "/", "%", "?", "a b", "x" * 1000, "é" * 500, "\U0001f600" * 250, "\xa0", "\u2028", "\ufeff"]
)
def test_a_key_is_returned_as_it_is(key: str) -> None:
    assert validate_key(key) == key


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("", "has 0"),
        ("x" * 1001, "has 1001"),
        ("é" * 500 + "x", "has 1001"),
        ("ab\x00", r"U\+0000 at 2"),
        ("\x1f", r"U\+001F at 0"),
        ("a\x7f", r"U\+007F at 1"),
        ("é\x80", r"U\+0080 at 1"),
        ("\x9f", r"U\+009F at 0"),
        ("a\ud800", r"U\+D800 at 1"),
        ("\udfff", r"U\+DFFF at 0"),
        (b"a", "bytes"),
        (None, "NoneType"),
        (7, "int"),
    ],
)
def test_a_key_is_refused_with_the_place_or_the_length(key: Any, told: str) -> None:
    with pytest.raises(InvalidKeyError, match=told):
        validate_key(key)


@given(st.text(max_size=1100))
def test_a_key_is_accepted_just_when_the_definition_says_so(key: str) -> None:
    code_points = [ord(character) for character in key]
    clean = not any(c < 0x20 or 0x7F <= c <= 0x9F or 0xD800 <= c <= 0xDFFF for c in code_points)
    valid = clean and 1 <= len(key.encode("utf-8", "surrogatepass")) <= MAX_KEY_BYTES

    try:
        validate_key(key)
    except InvalidKeyError:
        assert not valid
    else:
        assert valid
