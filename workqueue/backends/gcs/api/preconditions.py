"""Stage 2: which version of an object a request is about, and the preconditions that go onto it to say so.

Source: https://cloud.google.com/storage/docs/request-preconditions.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["IF_ABSENT", "Pin", "if_match", "if_source_match"]

IF_ABSENT = "ifGenerationMatch=0"
"""The object must not be there."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A version of an object; `metageneration` 0 = any, since the owner of a lease renews it meanwhile."""

    name: str
    generation: int
    metageneration: int = 0


def if_match(pin: Pin) -> str:
    """The part of a query that lets a request act on the version `pin` and no other."""
    return _match("if", pin)


def if_source_match(pin: Pin) -> str:
    """The same for the source of a copy."""
    return _match("ifSource", pin)


def _match(which: str, pin: Pin) -> str:
    match = f"{which}GenerationMatch={pin.generation}"
    return f"{match}&{which}MetagenerationMatch={pin.metageneration}" if pin.metageneration else match
