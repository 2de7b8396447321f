"""Stage 1: reading large JSON piece by piece: each object of a list with its own text, which is what a cache keeps.

A parsed object takes five times the memory of its text, and makes every garbage collection slower. So the text is kept,
and cut out of the answer while that is parsed: encoding it again would cost half as much as parsing it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from typing import Any

__all__ = ["pieces"]

_decode = json.JSONDecoder().raw_decode
_space = re.compile(r"[ \t\r\n]*").match


def pieces(text: str, large: str, members: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    """Parse a JSON object; yield the elements of its member `large`, or its value if it is no array, with their text.

    Args:
        text: the JSON.
        large: the name of the member.
        members: gets all the others; it is complete when the iteration has ended, as they may come after `large`.

    Raises:
        ValueError: it is no JSON object. What was yielded before is sound.
    """
    try:
        at = _past(text, 0, "{")
        while text[at] != "}":
            name, at = _decode(text, at)
            if not isinstance(name, str):
                raise ValueError("the name of a member is no string")
            at = _past(text, at, ":")
            if name != large:
                members[name], at = _decode(text, at)
            elif text[at] == "[":
                at = yield from _elements(text, _past(text, at, "["))
            else:
                value, end = _decode(text, at)
                yield value, text[at:end]
                at = end
            at = _next(text, at, "}")
        if _after_space(text, at + 1) < len(text):
            raise ValueError(f"the JSON goes on after its end at {at}")
    except IndexError as error:
        raise ValueError("the JSON is cut off") from error


def _elements(text: str, at: int) -> Generator[tuple[Any, str], None, int]:
    """Yield the elements of an array; returns where it has ended."""
    while text[at] != "]":
        value, end = _decode(text, at)
        yield value, text[at:end]
        at = _next(text, end, "]")
    return at + 1


def _next(text: str, at: int, closing: str) -> int:
    """Where the next member or element begins, or the closing bracket is."""
    at = _after_space(text, at)
    return at if text[at] == closing else _past(text, at, ",")


def _past(text: str, at: int, expected: str) -> int:
    at = _after_space(text, at)
    if text[at] != expected:
        raise ValueError(f"{expected!r} is expected at {at}, not {text[at]!r}")
    return _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    return _space(text, at).end()  # type: ignore[union-attr]  # it matches everywhere
