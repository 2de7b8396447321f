"""For programs: standard streams: those closed before the program began, and those that somebody sees."""

from __future__ import annotations

import os
from typing import TextIO

__all__ = ["fill_closed_streams", "is_terminal"]

_STANDARD = (0, 1, 2)


def fill_closed_streams() -> None:
    """Let no file or socket that is opened later get the number of a standard stream, and what is written to it."""
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody reads `stream` at a terminal that moves its cursor and knows colours; None = it is closed."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
