"""Stage 5: a source: which messages are its own, and where in them the key and the payload are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workqueue.routing.messages.discriminators import Discriminator
from workqueue.routing.messages.hooks import NO_HOOKS, Hooks
from workqueue.routing.messages.inspectors import MISSING, Inspector, JsonView, Path, View, at, inspect_json, names_of
from workqueue.routing.messages.message import Message, Parsed

__all__ = ["Parse", "Source", "fields"]

Parse = Callable[[Message, View], Parsed]
"""Given a message that is this source's, its key and payload; raises when they are not there."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where messages come from, as far as their form says it.

    Args:
        name: for hooks and errors; no other source of a router has it.
        when: whether a message is this source's; cheap, since it is asked for messages of other sources too.
        parse: asked once a message is known to be this source's.
        inspector: makes the view that `when` and `parse` get.
        hooks: called after those of the router, for messages of this source only.
    """

    name: str
    when: Discriminator
    parse: Parse
    inspector: Inspector = inspect_json
    hooks: Hooks = NO_HOOKS


def fields(key: Path, payload: Path) -> Parse:
    """A parse function for messages that have key and payload in two of their fields.

    Raises (the parse function):
        LookupError: one of the fields is not there.
        TypeError: the key is no text.
    """
    key_names, payload_names = names_of(key), names_of(payload)

    def parse(message: Message, view: View) -> Parsed:
        found = _present(at(view, key_names), key_names)
        if not isinstance(found, str):
            raise TypeError(f"the field {'.'.join(key_names)} is a text, not {type(found).__name__}")
        content = view.raw(payload_names) if isinstance(view, JsonView) else at(view, payload_names)
        return Parsed(found, _present(content, payload_names))

    return parse


def _present(value: Any, names: tuple[str, ...]) -> Any:
    if value is MISSING:
        raise LookupError(f"there is no field {'.'.join(names)}")
    return value
