"""Programs as processes that are forked ready to run (`tests.support.forker`), at a fifth of what a new Python costs.

No fork can show what Python does before it runs a module, or what that would import: where a test is about this,
`tests.support.processes` starts a new Python.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import IO

from tests.support.processes import Env, clean_environment, started
from tests.support.stderr import Stderr, stderr_of

__all__ = ["Forked", "forked"]


class Forked:
    """A program that runs beside the test."""

    def __init__(self, command: Sequence[str], stderr: Stderr, env: Env, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        module, *arguments = command
        assert not any(name.startswith("PYTHON") for name in env), "Python reads it before the fork: start a new one"
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_forker())
        socket.send_fds(self._connection, [b"."], [stdin.fileno(), stdout.fileno(), stderr.file.fileno()])
        self._told = self._connection.makefile("rw")
        self._told.write(json.dumps([module, arguments, clean_environment(env)]) + "\n")
        self._told.flush()
        self.pid = int(self._told.readline())
        self.returncode: int | None = None
        self._errors = stderr

    @property
    def err(self) -> str:
        """What it has written to standard error so far."""
        return self._errors.text

    def logged(self, text: str) -> str:
        """The next line of standard error that contains `text`; the process must not end before."""
        return self._errors.line(text, self.poll)

    def poll(self) -> int | None:
        """Its exit code, if it has one."""
        return self._code(0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has one; TimeoutError after `timeout` seconds."""
        code = self._code(timeout)
        if code is None:
            raise TimeoutError(f"{self.pid} has not ended within {timeout} seconds:\n{self.err}")
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End it, if it has not ended by itself."""
        self.kill()
        self.wait()
        self._told.close()
        self._connection.close()

    def _code(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            self.returncode = int(self._told.readline())
        return self.returncode


@contextmanager
def forked(
    command: Sequence[str],
    *,
    env: Env | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    complains: bool = False,
) -> Iterator[Forked]:
    """`python -m COMMAND…` until the block ends: it is killed then, if it has not ended by itself.

    Args:
        stdin: by default, nothing can be read from it.
        stdout: by default, where standard error goes.

    Raises:
        AssertionError: it complained, though it was not to.
    """
    with open(os.devnull, "rb") as nothing, stderr_of(command, complains=complains) as stderr:
        program = Forked(command, stderr, env or {}, stdin or nothing, stdout or stderr.file)
        try:
            yield program
        finally:
            program.close()


@functools.cache
def _forker() -> str:
    """The path of the socket of a forker that ends with the tests."""
    stack = ExitStack()
    atexit.register(stack.close)
    path = f"{stack.enter_context(TemporaryDirectory())}/forker"
    forker = stack.enter_context(started([sys.executable, "-m", "tests.support.forker", path]))
    assert forker.said() == "ready", forker.err
    return path
