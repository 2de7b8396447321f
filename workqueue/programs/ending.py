"""For programs: how every command ends. Whatever a user can cause is one line on stderr and an exit code, no traceback.

| code | means |
|---|---|
| 0 | done; for a server: it was stopped, and drained |
| 1 | not done, or not all of it: a key was not there or had changed, or the store needs an operator |
| 2 | the command line or a setting is wrong; nothing was done |
| 75 | the store, the server or the target cannot be reached now; the same command may work later (EX_TEMPFAIL) |
| 130 | interrupted from the keyboard |
"""

from __future__ import annotations

import asyncio
import errno
import gc
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Annotated, Any

import typer

from workqueue.access.files import raise_open_files
from workqueue.errors import (
    InfrastructureError,
    InvalidKeyError,
    InvalidOptionsError,
    InvalidSettingError,
    MissingExtraError,
    StoreUnavailableError,
    WorkQueueError,
)
from workqueue.programs.completion import completes, make_ready
from workqueue.programs.logs import configure_logging
from workqueue.programs.printing import OutputError, complaints, forget_output
from workqueue.signals import exit_at_once_on_signals, until_signalled

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "MISUSED",
    "TEMPORARY",
    "code_of",
    "common",
    "exit_code",
    "program",
    "run_server",
]

FAILED, MISUSED, TEMPORARY = 1, 2, 75

EXIT_CODES = (
    "Exit codes: 0 done, 1 not (all) done, 2 wrong command line or setting, "
    "75 the store or the target cannot be reached now, 130 interrupted."
)

# What `--help` may end with; whatever a command of ours shows is an OutputError.
_OF_OUTPUT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EPIPE})

_MISUSE = (InvalidKeyError, InvalidOptionsError, InvalidSettingError, MissingExtraError)


def program(app: typer.Typer, name: str) -> None:
    """Run the command line of this process and end the process with its exit code."""
    configure_logging("error", "text")  # what went wrong is said once, at the end; servers say how much they log
    if completes(name):
        make_ready()
    code = exit_code(app, name, sys.argv[1:])
    code = max(code, _flushed(name))
    exit_at_once_on_signals(code)
    sys.exit(code)


def _flushed(name: str) -> int:
    """Write what is left of the output; returns the exit code."""
    if sys.stdout is None:  # it was closed before the program began
        return 0
    try:
        sys.stdout.flush()
    except OSError as error:
        return _unwritten(name, error)
    return 0


def _unwritten(name: str, error: OSError) -> int:
    forget_output()
    if isinstance(error, BrokenPipeError):  # who reads it, such as `head`, has seen enough
        return 0
    return _complain(name, f"the output cannot be written: {error.strerror}", FAILED)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("workqueue-dispatcher"))
        raise typer.Exit


_Version = Annotated[
    bool,
    typer.Option(
        "--version",
        help="Show the release and exit.",
        is_eager=True,
        callback=_show_version,
        allow_from_autoenv=False,  # WORKQUEUE_VERSION may well be set, to a version
    ),
]


def common(version: _Version = False) -> None:
    """What every program takes before its command, for `app.callback()`."""


def exit_code(app: typer.Typer, name: str, args: Sequence[str]) -> int:
    """Run one command line; returns its exit code. Without arguments it prints the help."""
    try:
        result = app(list(args) or ["--help"], prog_name=name, standalone_mode=False)
    except typer.TyperException as error:
        return _complain(name, error.format_message(), error.exit_code)
    except OutputError as error:
        return 0 if error.is_unread else _complain(name, str(error), FAILED)
    except WorkQueueError as error:
        return _complain(name, str(error), code_of(error))
    except OSError as error:
        if error.errno not in _OF_OUTPUT or error.filename is not None:
            raise
        return _unwritten(name, error)
    except ExceptionGroup as group:
        ours, others = group.split(WorkQueueError)
        if ours is None or others is not None:
            raise
        errors = list(_leaves(ours))
        return _complain(name, "; ".join(dict.fromkeys(map(str, errors))), max(map(code_of, errors)))
    return result if isinstance(result, int) else 0


def code_of(error: WorkQueueError) -> int:
    """The exit code by which a script knows what to do about `error`."""
    if isinstance(error, _MISUSE):
        return MISUSED
    return TEMPORARY if isinstance(error, StoreUnavailableError | InfrastructureError) else FAILED


def _leaves(group: ExceptionGroup[WorkQueueError]) -> Iterator[WorkQueueError]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _complain(name: str, message: str, code: int) -> int:
    complaints([f"{name}: {' '.join(message.split())}"])
    return code


def run_server(work: Coroutine[Any, Any, None]) -> None:
    """Run a server until it ends, on uvloop where there is one, with as many open files as it may have.

    `work` is cancelled by a signal that comes in before it has keys in hand: while a store cannot be reached, say.
    """
    raise_open_files()
    gc.freeze()  # what was imported stays; to look through it in full collections was 8 % of the CPU of a drain
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_until_signalled(work))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _until_signalled(work: Coroutine[Any, Any, None]) -> None:
    working = asyncio.ensure_future(work)
    with until_signalled(working.cancel):
        await asyncio.wait((working,))
    if not working.cancelled():
        working.result()
