"""Stage 1: what an SQS message is a key of (pure)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from workqueue.errors import InvalidSettingError
from workqueue.options import Options
from workqueue.sqs.message import read_body

__all__ = ["KeyOf", "Message", "own_or_number", "parse_key"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was received."""

    number: str
    body: str
    attributes: dict[str, str]
    receipt: str


KeyOf = Callable[[Message], tuple[str, Options]]
"""The key of a message and what is said about it; a ValueError says why it has none."""


def own_or_number(message: Message) -> tuple[str, Options]:
    """What `SQSSink` sent; of any other message the key is its number, and the payload its body."""
    ours = read_body(message.body)
    return ours if ours is not None else (message.number, Options(payload=message.body.encode()))


def parse_key(text: str) -> KeyOf:
    """What a message is a key of.

    Args:
        text: `own` (see `own_or_number`), `body` (the text of the message), `attribute:NAME`, or `json:PATH`, such as
            `json:detail.bucket.name`. With the last two the payload is the body.

    Raises:
        InvalidSettingError: it is none of these.
    """
    kind, _, name = text.partition(":")
    if text == "own":
        return own_or_number
    if text == "body":
        return lambda message: (message.body.strip(), Options())
    if kind == "attribute" and name:
        return lambda message: (_attribute(message, name), Options(payload=message.body.encode()))
    if kind == "json" and name:
        return lambda message: (_field(message, name), Options(payload=message.body.encode()))
    raise InvalidSettingError(f"{text!r}: it takes own, body, attribute:NAME or json:PATH")


def _attribute(message: Message, name: str) -> str:
    if name not in message.attributes:
        raise ValueError(f"it has no attribute {name!r}")
    return message.attributes[name]


def _field(message: Message, path: str) -> str:
    try:
        found = json.loads(message.body)
    except RecursionError:
        raise ValueError("its body is nested too deeply") from None
    for step in path.split("."):
        if not isinstance(found, dict) or step not in found:
            raise ValueError(f"its body has no {path!r}")
        found = found[step]
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise ValueError(f"{path!r} in its body is no text")
    return str(found)
