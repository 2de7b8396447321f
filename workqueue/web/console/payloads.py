"""A payload as people read it: JSON laid out, text, or hex; never run, and never more than 64 KiB of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from workqueue.safe_text import visible

__all__ = ["MOST_BYTES", "ShownPayload", "shown_payload"]

MOST_BYTES = 64 * 1024
_HEX_BYTES = 4 * 1024
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass(frozen=True, slots=True)
class ShownPayload:
    """What is shown of a payload of `size` bytes; `kind` is json, text or hex; `cut` says that there is more."""

    kind: str
    text: str
    size: int
    cut: bool


def shown_payload(payload: bytes) -> ShownPayload:
    """`payload` for people; every character that could mislead is escaped."""
    size, head = len(payload), payload[:MOST_BYTES]
    cut = size > MOST_BYTES
    try:
        text = head.decode("utf-8", "ignore" if cut else "strict")
    except UnicodeDecodeError:
        return _hex(payload)
    if "\x00" in text:
        return _hex(payload)
    if not cut and (laid_out := _json(text)) is not None:
        return ShownPayload("json", _lines(laid_out), size, cut)
    return ShownPayload("text", _lines(text), size, cut)


def _json(text: str) -> str | None:
    """JSON laid out, every name and number as it was written; None if it is none."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    out, depth, before = "", 0, ""
    for token in _TOKEN.findall(text):
        if token in "]}":
            depth -= 1
            out += token if before in ("[", "{") else f"\n{'  ' * depth}{token}"
        else:
            breaks = before in ("[", "{", ",")
            out += (f"\n{'  ' * depth}" if breaks else " " if before == ":" else "") + token
            depth += token in ("[", "{")
        if len(out) > MOST_BYTES:
            return None
        before = token
    return out


def _hex(payload: bytes) -> ShownPayload:
    rows = []
    for at in range(0, min(len(payload), _HEX_BYTES), 16):
        row = payload[at : at + 16]
        plain = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        rows.append(f"{at:08x}  {row.hex(' '):<47}  {plain}")
    return ShownPayload("hex", "\n".join(rows), len(payload), len(payload) > _HEX_BYTES)


def _lines(text: str) -> str:
    return "\n".join(visible(line.replace("\t", "    ")) for line in text.splitlines())
