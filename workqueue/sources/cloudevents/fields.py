"""Stage 1: what an expression means by a field of a CloudEvent, and how a key is made of fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from workqueue.errors import InvalidSettingError, WorkQueueError
from workqueue.sources.cloudevents.event import Event

__all__ = ["Field", "KeyOf", "UnkeyedEventError"]

_ATTRIBUTE = re.compile(r"[a-z0-9]+")
_DATA = re.compile(r"data((?:\.[^.\[\]{}]+|\[\d+\])+)")
_STEP = re.compile(r"\.([^.\[\]{}]+)|\[(\d+)\]")
_PLACE = re.compile(r"\{([^{}]*)\}")


class UnkeyedEventError(WorkQueueError, ValueError):
    """The CloudEvent lacks what its key is made of; sending it again cannot help."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value of an event: an attribute or extension (`subject`, `partitionkey`), or `data.path[0].to.it`."""

    name: str
    steps: Sequence[str | int] = ()

    @classmethod
    def parse(cls, text: str) -> Field:
        """Read a field's name.

        Raises:
            InvalidSettingError: it is none.
        """
        if found := _DATA.fullmatch(text):
            return cls(text, tuple(name or int(number) for name, number in _STEP.findall(found[1])))
        if _ATTRIBUTE.fullmatch(text) and text != "data":
            return cls(text)
        raise InvalidSettingError(
            f"a field of an event is an attribute such as subject, or a path such as data.user.id or data.items[0], "
            f"not {text!r}"
        )

    def of(self, event: Event) -> str | None:
        """Its value in an event, as text; None if it is not there, or is neither text, a number, true nor false."""
        value = event.data if self.steps else event.attributes.get(self.name)
        for step in self.steps:
            value = _step(value, step)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return str(value) if isinstance(value, str | int | float) else None


def _step(value: object, step: str | int) -> object:
    if isinstance(step, str):
        return value.get(step) if isinstance(value, dict) else None
    return value[step] if isinstance(value, list) and step < len(value) else None


@dataclass(frozen=True, slots=True)
class KeyOf:
    """How a key is made of an event: text with fields in braces, such as `{source}/{data.name}`, or one bare field."""

    parts: Sequence[str | Field]

    @classmethod
    def parse(cls, text: str) -> KeyOf:
        """Read a template or a field.

        Raises:
            InvalidSettingError: it is neither, or it has no field.
        """
        if "{" not in text and "}" not in text:
            return cls((Field.parse(text),))
        split = _PLACE.split(text)  # text, field, text, field, …, text
        if len(split) == 1 or any("{" in literal or "}" in literal for literal in split[::2]):
            raise InvalidSettingError(
                f"a key template is text with fields in braces, such as {{source}}/{{data.name}}, not {text!r}"
            )
        return cls(tuple(Field.parse(part) if place % 2 else part for place, part in enumerate(split)))

    def of(self, event: Event) -> str:
        """The key of an event.

        Raises:
            UnkeyedEventError: a field is not there or is empty.
        """
        return "".join(part if isinstance(part, str) else _needed(part, event) for part in self.parts)


def _needed(field: Field, event: Event) -> str:
    value = field.of(event)
    if not value:
        raise UnkeyedEventError(f"the CloudEvent has no {field.name}, of which its key is made")
    return value
