"""Stage 5: which messages are a source's: predicates over the fields that an inspector found.

A discriminator of your own is any function of a view. What it raises fails the message: a message must not go to
another source because of a bug.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from workqueue.routing.messages.inspectors import MISSING, Path, View, at, names_of

__all__ = ["ANYTHING", "Discriminator", "Need", "all_of", "any_of", "field_equals", "has_fields", "needs_of"]

Discriminator = Callable[[View], bool]

ANYTHING: Any = object()


class Need(NamedTuple):
    """Without a field of this name that has this value no message is the source's; `ANYTHING` = any value."""

    field: str
    value: Hashable = ANYTHING


@dataclass(frozen=True, slots=True)
class _Known:
    """A discriminator of which more is known: at least one of its needs is met by every message that it says yes to."""

    says: Discriminator
    needs: Sequence[Need] = field(default=())

    def __call__(self, view: View) -> bool:
        return self.says(view)


def needs_of(discriminator: Discriminator) -> Sequence[Need]:
    """One of these is met by every message that `discriminator` says yes to; none where nothing is known."""
    return discriminator.needs if isinstance(discriminator, _Known) else ()


def has_fields(*paths: Path) -> Discriminator:
    """Whether every one of these fields is there, whatever it holds; null counts as there."""
    wanted = [names_of(path) for path in paths]
    return _Known(
        lambda view: all(at(view, names) is not MISSING for names in wanted), [Need(names[0]) for names in wanted[:1]]
    )


def field_equals(path: Path, value: object) -> Discriminator:
    """Whether the field is there and equals `value`. True is not 1, as in JSON."""
    names, is_bool = names_of(path), isinstance(value, bool)
    indexed = value if len(names) == 1 and isinstance(value, Hashable) else ANYTHING

    def says(view: View) -> bool:
        found = at(view, names)
        return bool(found == value) and isinstance(found, bool) is is_bool

    return _Known(says, [Need(names[0], indexed)])


def all_of(*discriminators: Discriminator) -> Discriminator:
    """Whether all of these say yes; the first that says no ends it."""
    known = [needs for needs in map(needs_of, discriminators) if needs]
    # Any of them will do; a value narrows it down more than that a field is there.
    known.sort(key=lambda needs: any(need.value is ANYTHING for need in needs))
    return _Known(lambda view: all(matches(view) for matches in discriminators), known[0] if known else ())


def any_of(*discriminators: Discriminator) -> Discriminator:
    """Whether one of these says yes; the first that does ends it."""
    known = [needs_of(matches) for matches in discriminators]
    needs = [need for needs in known for need in needs] if all(known) else []
    return _Known(lambda view: any(matches(view) for matches in discriminators), needs)
