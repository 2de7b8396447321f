"""The one place where tests start processes: none outlives its block, and its standard error is read.

A test whose process has to write a traceback says so with `complains=True`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.stderr import Command, Stderr, stderr_of

__all__ = [
    "REPOSITORY",
    "Ended",
    "Env",
    "Process",
    "Spawned",
    "clean_environment",
    "python",
    "ran",
    "spawned",
    "started",
]

REPOSITORY = Path(__file__).resolve().parents[2]
Env = Mapping[str, str | None]  # what differs from the environment of the tests; None takes a name away
# Where nothing may be written beside the sources, each of some thousand processes would compile all that it imports.
_COMPILED: Env = {
    "PYTHONDONTWRITEBYTECODE": None,
    "PYTHONPYCACHEPREFIX": str(REPOSITORY / ".pytest_cache" / "compiled"),
}


@dataclass(frozen=True)
class Ended:
    """What became of a process, or of a program in this one."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def clean_environment(extra: Env) -> dict[str, str]:
    """This process's environment without the developer's own settings; Python says there what it left open."""
    ours = ("WORKQUEUE_", "DISPATCHER_", "PORT", "SHARD_URLS", "ERROR_EVENT_", "METRICS_PORT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    fixed = {"GCE_METADATA_HOST": "127.0.0.1:9", "NO_GCE_CHECK": "true", "PYTHONWARNINGS": "default::ResourceWarning"}
    changed = {**fixed, **(_COMPILED if "PYTHONDONTWRITEBYTECODE" in kept else {}), **extra}
    return {name: value for name, value in {**kept, **changed}.items() if value is not None}


def ran(
    command: Command,
    *,
    stdin: str | bytes = b"",
    env: Env | None = None,
    cwd: Path = REPOSITORY,
    timeout: float = 100,
    complains: bool = False,
) -> Ended:
    """Run a command to its end; its environment is clean but for `env`.

    Raises:
        AssertionError: it complained, though it was not to.
        subprocess.TimeoutExpired: it was killed after `timeout` seconds.
    """
    with stderr_of(command, complains=complains) as stderr:
        ended = subprocess.run(
            command,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            env=clean_environment(env or {}),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=stderr.file,
            timeout=timeout,
        )
        err = stderr.text
    return Ended(ended.returncode, ended.stdout.decode(), err)


def python(*arguments: str | Path, **how: Any) -> Ended:
    """Run this Python with `arguments` to its end; for the rest see `ran`."""
    return ran([sys.executable, *arguments], **how)


class Process(subprocess.Popen[str]):
    """A process that runs beside the test."""

    def __init__(self, command: Command, stderr: Stderr, env: Env, cwd: Path, *, out: bool) -> None:
        super().__init__(
            command,
            env=clean_environment(env),
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if out else stderr.file,
            stderr=stderr.file,
            text=True,
        )
        self._errors = stderr

    @property
    def err(self) -> str:
        """What it has written to standard error so far."""
        return self._errors.text

    def logged(self, text: str) -> str:
        """The next line of standard error that contains `text`; the process must not end before."""
        return self._errors.line(text, self.poll)

    def said(self) -> str:
        """The next line of standard output, without its end."""
        assert self.stdout is not None
        return self.stdout.readline().rstrip("\n")


@contextmanager
def started(
    command: Command,
    *,
    env: Env | None = None,
    cwd: Path = REPOSITORY,
    out: bool = True,
    complains: bool = False,
) -> Iterator[Process]:
    """A process until the block ends: it is killed then, if it has not ended by itself.

    Args:
        out: whether the test reads its standard output; if not, that goes where standard error does.

    Raises:
        AssertionError: it complained, though it was not to.
    """
    with stderr_of(command, complains=complains) as stderr:
        process = Process(command, stderr, env or {}, cwd, out=out)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


class Spawned:
    """A process that runs beside an async test."""

    def __init__(self, process: asyncio.subprocess.Process, stderr: Stderr) -> None:
        self.process = process
        self._errors = stderr

    async def said(self) -> str:
        """The next line of standard output, without its end."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def logged(self, text: str) -> str:
        """The next line of standard error that contains `text`; the process must not end before."""
        return await asyncio.to_thread(self._errors.line, text, lambda: self.process.returncode)


@asynccontextmanager
async def spawned(command: Command, *, env: Env | None = None, complains: bool = False) -> AsyncIterator[Spawned]:
    """As `started`, for the event loop."""
    with stderr_of(command, complains=complains) as stderr:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=clean_environment(env or {}),
            cwd=REPOSITORY,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr.file,
        )
        try:
            yield Spawned(process, stderr)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
