"""Partial responses: the `fields` parameter, such as `items(name,metadata),nextPageToken`.

Source: https://cloud.google.com/storage/docs/json_api#partial-response
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from tests.fakes.gcs.errors import ApiError, invalid_parameter

# What to keep, by name, and within it; an empty selection keeps everything.
Selection = dict[str, Any]

TOKEN = re.compile(r"[A-Za-z0-9_*-]+|[(),/]")


@lru_cache(maxsize=256)
def parse_fields(text: str) -> Selection:
    """Read a field selector.

    Raises:
        ApiError: 400 for one that is malformed.
    """
    tokens = TOKEN.findall(text)
    if not tokens or "".join(tokens) != text:
        raise malformed(text)
    try:
        selection = read_list(tokens, text)
    except IndexError:
        raise malformed(text) from None
    if tokens:
        raise malformed(text)
    return selection


def malformed(text: str) -> ApiError:
    """The refusal of a selector."""
    return invalid_parameter("fields", f"Invalid field selection {text}")


def read_list(tokens: list[str], text: str) -> Selection:
    """Consume `path,path,…` from the front of `tokens`."""
    selection: Selection = {}
    read_path(tokens, text, selection)
    while tokens and tokens[0] == ",":
        tokens.pop(0)
        read_path(tokens, text, selection)
    return selection


def read_path(tokens: list[str], text: str, into: Selection) -> None:
    """Consume `name`, `name/path` or `name(list)` from the front of `tokens`."""
    name = tokens.pop(0)
    if name in "(),/":
        raise malformed(text)
    inner = into.setdefault(name, {})
    if tokens and tokens[0] == "/":
        tokens.pop(0)
        read_path(tokens, text, inner)
    elif tokens and tokens[0] == "(":
        tokens.pop(0)
        inner.update(read_list(tokens, text))
        if tokens.pop(0) != ")":
            raise malformed(text)


def select(value: Any, selection: Selection) -> Any:
    """Keep what the selection names; lists are searched through, `*` stands for every name."""
    if not selection:
        return value
    if isinstance(value, list):
        return [select(item, selection) for item in value]
    if not isinstance(value, dict):
        return value
    if "*" in selection:
        return {name: select(item, selection["*"]) for name, item in value.items()}
    return {name: select(value[name], inner) for name, inner in selection.items() if name in value}
