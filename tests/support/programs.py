"""Run the programs in tests: in this process, which is quick, or as processes of their own."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from tempfile import TemporaryFile
from unittest import mock

from typer import Typer

from dispatcher import cli as dispatcher_cli
from tests.support.forked import Forked, forked
from tests.support.processes import Ended, Process, clean_environment, started
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.cli import app as workqueue_cli
from workqueue.conformance import Target, URLTarget
from workqueue.handles import Queued
from workqueue.interface import WorkQueue
from workqueue.programs.ending import exit_code
from workqueue.testing import FakeClock


def workqueue(*args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Ended:
    """One `workqueue` command line, in this process."""
    return _here(workqueue_cli.app, "workqueue", args, stdin, env or {})


def run(url: str, *args: str, stdin: bytes = b"") -> Ended:
    """One `workqueue` command line for the queue at `url`, in this process."""
    return workqueue(*args, stdin=stdin, env={"WORKQUEUE_URL": url})


def dispatcher(*args: str, env: Mapping[str, str] | None = None) -> Ended:
    """One `dispatcher` command line, in this process; for those that end by themselves."""
    return _here(dispatcher_cli.app, "dispatcher", args, b"", env or {})


def _here(app: Typer, name: str, args: Sequence[str], stdin: bytes, env: Mapping[str, str]) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    source = io.TextIOWrapper(io.BytesIO(stdin))
    environment = mock.patch.dict(os.environ, clean_environment(env), clear=True)
    with _logging_kept(), environment, mock.patch("sys.stdin", source), redirect_stdout(out), redirect_stderr(err):
        code = exit_code(app, name, args)
    return Ended(code, out.getvalue(), err.getvalue())


@contextmanager
def _logging_kept() -> Iterator[None]:
    """A program configures logging for its process; here the process is that of all the other tests."""
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn")
    kept = root.handlers[:], root.level, uvicorn.level
    try:
        yield
    finally:
        root.handlers[:] = kept[0]
        root.setLevel(kept[1])
        uvicorn.setLevel(kept[2])


def process(program: str, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Ended:
    """One command line of `workqueue` or `dispatcher` as a process of its own."""
    with TemporaryFile() as given, TemporaryFile() as out:
        given.write(stdin)
        given.seek(0)
        with forked([f"{program}.cli", *args], env=env, stdin=given, stdout=out) as it:
            code = it.wait(timeout=100)
        out.seek(0)
        return Ended(code, out.read().decode(), it.err)


class _ForgetfulQueue(MemoryQueue):
    """Says that it drops a key, and keeps it."""

    async def drop_queued(self, queued: Queued) -> bool:
        return True


class _Forgetful(URLTarget):
    def open(self, name: str, *, clock: FakeClock | None, owner: str) -> WorkQueue:
        opened = super().open(name, clock=clock, owner=owner)
        opened.__class__ = _ForgetfulQueue  # so that its peers share its keys, as the target sees to
        return opened


def forgetful() -> Target:
    return _Forgetful("memory://")


class Server:
    """A program that serves, as a process of its own; what it logs is read line by line."""

    def __init__(self, process: Forked | Process) -> None:
        self._process = process

    @property
    def lines(self) -> list[str]:
        """What it has logged so far."""
        return self._process.err.splitlines()

    def logged(self, text: str) -> str:
        """The message of the next line that contains `text`; the program must not end before."""
        return str(json.loads(self._process.logged(text))["message"])

    def port(self, text: str) -> int:
        """The port in the next message that contains `text`."""
        return int(self.logged(text).rpartition(":")[2])

    def tell(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        """Its exit code, once it has one."""
        return self._process.wait(timeout=60)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def serving(
    *command: str, env: Mapping[str, str] | None = None, complains: bool = False, new: bool = False
) -> Iterator[Server]:
    """`python -m COMMAND…` until the block ends, by its own will or ours.

    Args:
        new: start a new Python rather than fork one: for what is decided before or by the imports.
    """
    command = (*command, "--log-format", "json")
    how = started([sys.executable, "-m", *command], env=env, complains=complains) if new else None
    with how or forked(command, env=env, complains=complains) as process:
        yield Server(process)
