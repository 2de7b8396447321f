"""Where `top` shows its pictures: a terminal's own screen, drawn anew, or plain text one below the other.

Whatever ends the program, the terminal is as it was before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from workqueue.cli.top.picture import Line, View, picture
from workqueue.programs import printing
from workqueue.programs.streams import is_terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

__all__ = ["Screen", "screen"]

_QUIT = frozenset(b"qQ")


class Screen(Protocol):
    """Shows one view after the other."""

    def show(self, view: View) -> None:
        """Show it instead of the one before, or after it."""


class _Plain:
    """Every view as text, an empty line between two: in full in a file or a pipe, cut to the width of a terminal."""

    def __init__(self) -> None:
        self._is_first = True

    def show(self, view: View) -> None:
        if not self._is_first:
            printing.note("")
        self._is_first = False
        width = os.get_terminal_size(sys.stdout.fileno()).columns if is_terminal(sys.stdout) else None
        for line in picture(view, width or None):  # a terminal that does not know its width says 0
            printing.note(line.text)


class _Terminal:
    """The last view, fitted to the terminal as it is now."""

    def __init__(self, live: Live, console: Console) -> None:
        self._live = live
        self._console = console
        self._view: View | None = None

    def show(self, view: View) -> None:
        self._view = view
        self.draw()

    def draw(self) -> None:
        """Draw the last view: the terminal may have another size by now."""
        if self._view is not None:
            width, height = self._console.size
            self._live.update(_text(picture(self._view, width, height)), refresh=True)


@contextlib.contextmanager
def screen(end: Callable[[], object], *, plain: bool) -> Iterator[Screen]:
    """Where to show, until the block ends; to be entered while an event loop runs.

    Args:
        end: called when somebody presses `q`.
        plain: show plain text on a terminal too.
    """
    if plain or not is_terminal(sys.stdout):
        yield _Plain()
        return
    from rich.console import Console
    from rich.live import Live

    # A shell that exports its size would hold the picture to what it was when the shell looked.
    unsized = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
    console = Console(highlight=False, _environ=unsized)
    with Live(console=console, screen=True, auto_refresh=False) as live, _quitting(end):
        terminal = _Terminal(live, console)
        with _resized(terminal.draw):
            yield terminal


def _text(lines: Sequence[Line]) -> Text:
    from rich.text import Text

    return Text("\n", no_wrap=True, overflow="crop").join(Text(line.text, line.style) for line in lines)


@contextlib.contextmanager
def _quitting(end: Callable[[], object]) -> Iterator[None]:
    """Within the block keys are read as they are pressed, and not shown; `q` calls `end`."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    loop, file = asyncio.get_running_loop(), sys.stdin.fileno()

    def pressed() -> None:
        typed = os.read(file, 1024)
        if not typed:  # the terminal is gone, and a SIGHUP on its way
            loop.remove_reader(file)
        elif _QUIT.intersection(typed):
            end()

    before = termios.tcgetattr(file)
    tty.setcbreak(file)
    loop.add_reader(file, pressed)
    try:
        yield
    finally:
        loop.remove_reader(file)
        termios.tcsetattr(file, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resized(draw: Callable[[], object]) -> Iterator[None]:
    """Within the block, `draw` is called when the terminal has got another size."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, draw)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
