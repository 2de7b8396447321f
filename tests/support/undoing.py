"""For what starts several things: those that it did start are stopped if a later one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["undone_by"]


@contextmanager
def undone_by(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` if the block fails."""
    try:
        yield
    except BaseException:
        undo()
        raise
