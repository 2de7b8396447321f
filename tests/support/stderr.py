"""What processes of tests write to standard error: it is shown, and a complaint there fails the test.

A complaint is what Python or asyncio writes when something went wrong that no exit code says: a traceback, a task that
was destroyed, a coroutine that nobody awaited, a resource that was left open. What is shown, pytest captures; it prints
it with a test that failed.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["COMPLAINTS", "Command", "Stderr", "complaints", "stderr_of"]

Command = Sequence[str | Path]
COMPLAINTS = (
    "Traceback (most recent call last)",
    "Exception ignored in",
    "Fatal Python error",
    "ResourceWarning",
    "Task was destroyed",
    "exception was never retrieved",
    "was never awaited",
    "Unclosed c",  # aiohttp's sessions, connections and connectors
)
# Where the callback of a user failed: a program that logs this does what it should, as text or as JSON.
_REPORT = re.compile(
    r'^.* dispatcher\.report: where key .* failed:\n(?:  \| .*\n)*|^\{.*"where key .* failed:".*\n', re.MULTILINE
)


def complaints(text: str) -> list[str]:
    """The lines of `text` that no process of ours should have written."""
    return [line for line in _REPORT.sub("", text).splitlines() if any(said in line for said in COMPLAINTS)]


class Stderr:
    """What one process writes to standard error: a file, so that no pipe fills up and it can be read at any time."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - `stderr_of` closes it
        self._heard = 0
        self._text = ""

    @property
    def text(self) -> str:
        """All of it so far."""
        if not self.file.closed:
            self._text = self._from(0).decode(errors="replace")
        return self._text

    def line(self, text: str, code: Callable[[], int | None]) -> str:
        """The next line that contains `text`, after the one that this gave before.

        Raises:
            AssertionError: the process ended before it wrote one; `code` gives its exit code, once there is one.
        """
        while True:
            ended = code()  # asked first: what it wrote before it ended is in the file then
            if found := self._next(text):
                return found
            assert ended is None, f"ended with {ended} before it wrote {text!r}:\n{self.text}"
            time.sleep(0.01)

    def _next(self, text: str) -> str | None:
        for line in self._from(self._heard).splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            self._heard += len(line)
            if text in (found := line.decode(errors="replace")):
                return found
        return None

    def _from(self, offset: int) -> bytes:
        descriptor = self.file.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size - offset, offset)


@contextmanager
def stderr_of(command: Command, *, complains: bool) -> Iterator[Stderr]:
    """A standard error for the process of `command`, which must have ended when the block does.

    Raises:
        AssertionError: the block ended well and the process complained, which it must do only if it `complains`.
    """
    stderr = Stderr()
    with stderr.file:
        try:
            yield stderr
        finally:
            text = stderr.text
            _show(command, text)
    assert complains or not complaints(text), f"{_named(command)} complained:\n{text}"


def _show(command: Command, text: str) -> None:
    if text:
        sys.stderr.write(f"--- standard error of {_named(command)}\n{text}\n")


def _named(command: Command) -> str:
    return " ".join(map(str, command))[:200]
