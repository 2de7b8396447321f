"""Stage 5: which registered name takes a name (pure): exactly that one, else the longest prefix, else the catch-all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from workqueue.errors import InvalidSettingError
from workqueue.routing.errors import DuplicateRouteError

__all__ = ["CATCH_ALL", "SEPARATORS", "Routes"]

SEPARATORS = ":/."
"""A prefix ends at one of these: `email` and `email:` take `email:new`, and neither takes `emailx`."""

CATCH_ALL = ""

_T = TypeVar("_T")


class Routes(Generic[_T]):
    """A table of names. What was registered under a name is found by it, and by every name that goes on after it."""

    def __init__(self) -> None:
        self._by_name: dict[str, _T] = {}

    def add(self, name: str, found: _T) -> None:
        """Register `found` under `name`; '' takes what nothing else does.

        Raises:
            DuplicateRouteError: `name` is taken.
            InvalidSettingError: `name` is no text.
        """
        if not isinstance(name, str):
            raise InvalidSettingError(f"a route is registered under a text, not under {name!r}")
        if name in self._by_name:
            raise DuplicateRouteError(f"the route {name!r} is registered already")
        self._by_name[name] = found

    def find(self, name: str) -> _T | None:
        """What takes `name`: the route of that name, else the one with the longest prefix of it, else the catch-all."""
        found = self._by_name.get(name)
        if found is not None:
            return found
        for prefix in _prefixes(name):
            found = self._by_name.get(prefix)
            if found is not None:
                return found
        return self._by_name.get(CATCH_ALL)

    def change(self, changed: Callable[[_T], _T]) -> None:
        """Replace what is registered under each name by what `changed` makes of it."""
        self._by_name = {name: changed(found) for name, found in self._by_name.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)


def _prefixes(name: str) -> Iterator[str]:
    """Every prefix of `name` that ends with a separator or right before one, the longest first."""
    for end in range(len(name) - 1, -1, -1):
        if name[end] in SEPARATORS:
            yield name[: end + 1]
            yield name[:end]
