"""For programs: how far long work has come, for a person at a terminal. Files, pipes and logs see nothing of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from workqueue.programs.streams import is_terminal

__all__ = ["Advance", "is_watched", "progress", "unseen"]

_FEW = 100  # done before anybody has read how many there are

Advance = Callable[[int], None]
"""Called with how many more are done."""


def is_watched() -> bool:
    """Whether somebody sees stderr who would want to know."""
    return is_terminal(sys.stderr)


@contextmanager
def progress(verb: str, total: int | None = None) -> Iterator[Advance]:
    """Show on stderr how many are done until the block ends, then take it away again.

    Args:
        verb: what is done to them: `enqueued`.
        total: how many there are; None = nobody knows. Of a few nothing is shown.
    """
    if not is_watched() or (total is not None and total < _FEW):
        yield unseen
        return
    from rich.console import Console  # lazily: rich costs a third of the start of a command
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # What goes to stdout is another's: rich would write it to stderr.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as shown:
        task = shown.add_task(verb, total=total)
        yield lambda done: shown.advance(task, done)


def unseen(done: int) -> None:
    """Nobody sees it."""
