"""For the tests of what somebody else wrote into a payload: a JSON object with one value of another kind at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["with_odd_values"]

_ODD: list[Any] = [
    None,
    True,
    -1,
    5,
    1.5,
    2**63,
    10**30,
    "",
    "x",
    "\ud800",
    "9" * 5000,
    [],
    [None],
    [[5, 5]],
    {},
    {"a": 5},
]


def with_odd_values(document: bytes) -> Iterator[bytes]:
    """`document` without one of its names, and with each odd value in place of each of its values."""
    known = json.loads(document)
    for name in known:
        yield json.dumps({key: value for key, value in known.items() if key != name}).encode()
        for odd in _ODD:
            yield json.dumps({**known, name: odd}).encode()
        yield json.dumps({**known, name: 0}).replace(": 0", ": 1e400", 1).encode()
    yield from (json.dumps(odd).encode() for odd in _ODD)
    yield b"[" * 100_000
