"""Stage 6: what an owner of a key must remember until it settles."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Hold"]


@dataclass(slots=True, eq=False)
class Hold:
    """One attempt's side of its object in progress.

    Args:
        metadata: what the object carries along.
        letter: the generation of the key's dead letter; 0 = there is none, None = nobody knows.
        turn: settles take turns, since each is several requests and only one may apply.
        over: a settle was applied, or found the lease gone.
        unsure: a settle may have been applied although it failed: its last request was not answered.
        abandoned: the lease is no longer kept alive.
    """

    metadata: Mapping[str, str]
    letter: int | None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    over: bool = False
    unsure: bool = False
    abandoned: bool = False
