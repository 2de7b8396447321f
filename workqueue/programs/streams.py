"""For programs: standard streams that were closed before the program began."""

from __future__ import annotations

import os

__all__ = ["fill_closed_streams"]

_STANDARD = (0, 1, 2)


def fill_closed_streams() -> None:
    """Let no file or socket that is opened later get the number of a standard stream, and what is written to it."""
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
