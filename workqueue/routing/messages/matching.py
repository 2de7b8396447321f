"""Stage 5: which of many sources a message is for: the first one, in the order of registration, that says yes.

Asking each of fifty sources would cost more than all the rest. So sources of which it is known what they need are only
asked when the message has it. That changes which ones are asked, never which one wins.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from workqueue.routing.messages.discriminators import ANYTHING, Discriminator, needs_of
from workqueue.routing.messages.inspectors import View

__all__ = ["Matching"]

_T = TypeVar("_T")


class Matching(Generic[_T]):
    """Sources that look at one kind of view, in order."""

    def __init__(self) -> None:
        self._sources: list[tuple[Discriminator, _T]] = []
        self._always: list[int] = []
        self._by_field: dict[str, _Field] = {}

    def add(self, when: Discriminator, source: _T) -> None:
        """Register a source after the others."""
        number = len(self._sources)
        self._sources.append((when, source))
        needs = needs_of(when)
        if not needs:
            self._always.append(number)
        for name, value in needs:
            self._by_field.setdefault(name, _Field()).add(value, number)

    def find(self, view: View) -> _T | None:
        """The first source whose discriminator says yes."""
        asked = map(self._sources.__getitem__, self._asked(view)) if self._by_field else self._sources
        for says, source in asked:
            if says(view):
                return source
        return None

    def _asked(self, view: View) -> list[int]:
        """The sources that may say yes, in order."""
        asked = self._always
        for name in self._by_field.keys() & view.keys():
            found = self._by_field[name].asked(view, name)
            asked = sorted({*asked, *found}) if asked else found
        return asked


class _Field:
    """Which sources may say yes to a message that has this field: those that need any value, or the one that it has."""

    def __init__(self) -> None:
        self._any: list[int] = []
        self._by_value: dict[Hashable, list[int]] = {}

    def add(self, value: Hashable, number: int) -> None:
        if value is not ANYTHING:
            self._by_value.setdefault(value, [*self._any]).append(number)
            return
        for numbers in (self._any, *self._by_value.values()):
            numbers.append(number)

    def asked(self, view: View, name: str) -> list[int]:
        if not self._by_value:  # then its value is not looked at, which may be a large payload
            return self._any
        try:
            return self._by_value.get(view[name], self._any)
        except TypeError:  # a list or an object, which equals nothing that is indexed
            return self._any
