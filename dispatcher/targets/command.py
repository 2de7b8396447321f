"""Stage 5: a callback that runs a program for each key: the key as JSON on its stdin, the outcome as its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence

from dispatcher.outage import Outage, TargetUnavailableError
from dispatcher.targets.document import MAX_REASON_BYTES, HandlerFailedError, key_document
from workqueue.attempt import Attempt
from workqueue.clock import Clock, SystemClock, within
from workqueue.errors import InvalidSettingError, NonRetriableError
from workqueue.options import check_type
from workqueue.safe_text import cut, describe

__all__ = ["EX_DATAERR", "EX_TEMPFAIL", "CommandCallback", "command_callback"]

EX_DATAERR = 65
"""The key can never succeed: drop it. Source: sysexits.h of BSD."""

EX_TEMPFAIL = 75
"""It failed this time: try it again. Source: sysexits.h of BSD."""

_GRACE_SECONDS = 2.0  # less than the 3 s that a dispatcher which stops waits for cancelled callbacks


def command_callback(*command: str, clock: Clock | None = None) -> CommandCallback:
    """A callback that runs `command` for each key, for as long as the attempt may run.

    | exit code | the key |
    |---|---|
    | 0 | completed |
    | 65 (EX_DATAERR) | dropped |
    | 75 (EX_TEMPFAIL), any other, or killed by a signal | failed: tried again |

    The program gets the `key_document` on its stdin, inherits the environment, and writes what went wrong to stderr, of
    which the end is kept. Its stdout is ignored. It has ended when nothing holds its stderr any more.

    When the attempt is cancelled, the program's process group gets SIGTERM and, after 2 s, SIGKILL. A program whose
    dispatcher is killed runs on: its key may run elsewhere at the same time.

    Args:
        command: the program and its arguments; no shell looks at them.
        clock: what the 2 s are measured by.

    Raises:
        InvalidSettingError: there is no such program.
    """
    for part in command:
        check_type("a command", part, str, "text, one for each argument")
    if not command or shutil.which(command[0]) is None:
        raise InvalidSettingError(f"{' '.join(command)!r} is no command that can be run here")
    return CommandCallback(command, clock or SystemClock())


class CommandCallback:
    """What `command_callback` returns."""

    def __init__(self, command: Sequence[str], clock: Clock) -> None:
        self._command = command
        self._clock = clock
        self.outage = Outage()
        """What is known of the program, by all rounds and loops that start it through this."""

    async def __call__(self, key: str, attempt: Attempt) -> None:
        document = json.dumps(key_document(key, attempt)).encode()
        process = await self._started()
        try:
            said = await _talk(process, document)
            code = await process.wait()
        finally:
            if process.returncode is None:
                await self._end(process)
        _check(code, said)

    async def _started(self) -> Process:
        try:
            # A session of its own, so that what it started ends with it, and Ctrl-C reaches the dispatcher alone.
            return await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=DEVNULL, stderr=PIPE, start_new_session=True
            )
        except OSError as error:
            raise TargetUnavailableError(f"{self._command[0]} cannot be started: {describe(error)}") from error

    async def _end(self, process: Process) -> None:
        """Ask the program to end, then end it, with what it started; a second cancellation skips the waiting."""
        try:
            _signal(process, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await within(self._clock, _GRACE_SECONDS, process.wait())
        finally:
            _signal(process, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):  # what has left the group may hold its stderr for ever
            await within(self._clock, _GRACE_SECONDS, process.wait())


async def _talk(process: Process, document: bytes) -> str:
    """Give the program its document, and return the end of what it writes to stderr."""
    assert process.stdin is not None
    assert process.stderr is not None
    with contextlib.suppress(ConnectionError):  # it need not read what it is given
        process.stdin.write(document)
        await process.stdin.drain()
    with contextlib.suppress(ConnectionError):
        process.stdin.close()
    said = b""
    while part := await process.stderr.read(64 * 1024):
        said = (said + part)[-MAX_REASON_BYTES:]
    return said.decode("utf-8", "replace").strip()


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _check(code: int, said: str) -> None:
    if code == 0:
        return
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    why = cut(f"the command {how}{': ' if said else ''}{said}", 2 * MAX_REASON_BYTES)
    raise NonRetriableError(why) if code == EX_DATAERR else HandlerFailedError(why)
