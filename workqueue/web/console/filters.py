"""Which keys a page is about: a place and a filter, as fields of a URL or of a form."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from workqueue.backends.url import duration
from workqueue.errors import InvalidOptionsError
from workqueue.paging import Place
from workqueue.searching import Filter

__all__ = ["FIELDS", "duration_of", "filter_of", "number_of", "place_of"]

FIELDS = ("prefix", "priority", "attempts", "older", "error")
"""The fields of a filter, in URLs and forms."""


def place_of(text: str) -> Place:
    """The place of this name.

    Raises:
        InvalidOptionsError: there is none.
    """
    try:
        return Place(text)
    except ValueError:
        raise InvalidOptionsError(f"there is no place {text!r}; they are {', '.join(Place)}") from None


def filter_of(value: Callable[[str], str]) -> Filter:
    """The filter that the fields make.

    Args:
        value: the text of a field, '' where it was left empty.

    Raises:
        InvalidOptionsError: one of them makes no sense; the message names it.
    """
    priority = number_of("priority", value("priority"))
    attempts, older = number_of("attempts", value("attempts")), duration_of("older than", value("older"))
    return Filter(value("prefix"), priority, attempts or 0, older, value("error"))


def number_of(name: str, text: str, kind: type[Any] = int) -> Any:
    """The number in the field of this name; None where it was left empty.

    Raises:
        InvalidOptionsError: it is none.
    """
    text = text.strip()
    try:
        return kind(text) if text else None
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise InvalidOptionsError(f"{name.replace('_', ' ')} takes {what}, not {text!r}") from None


def duration_of(name: str, text: str) -> timedelta | None:
    """The duration in the field of this name; None where it was left empty.

    Raises:
        InvalidOptionsError: it is none.
    """
    text = text.strip()
    try:
        return duration(text) if text else None
    except ValueError as error:
        raise InvalidOptionsError(f"{name}: {error}, not {text!r}") from error
