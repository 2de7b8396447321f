"""How a process is asked to end: the first of SIGTERM, SIGINT and SIGHUP begins its end, each further one hurries it.

Blocks may stand within each other: around a program as a whole, and in it around whatever has keys in hand. The
innermost decides. Nothing slow is imported here at the top, so that a program can heed signals before it imports that.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any, Protocol

__all__ = ["Drains", "exit_at_once_on_signals", "exit_on_signals", "signals_handed_to", "until_signalled"]

_Act = Callable[[], object]

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP")


class Drains(Protocol):
    """What has keys in hand when a signal comes in."""

    async def drain(self) -> None:
        """Begin nothing more, and return once nothing is in hand any more."""

    def hurry(self) -> None:
        """Cut short what is in hand, so that `drain` returns soon."""


class _Ending:
    """The signals that one event loop has got, and the blocks that they are for, the innermost last."""

    def __init__(self) -> None:
        self.signalled = 0
        self.blocks: list[tuple[_Act, _Act]] = []

    def take(self, number: signal.Signals) -> None:
        import logging

        self.signalled += 1
        first = self.signalled == 1
        logging.getLogger(__name__).info("%s: %s", number.name, "draining" if first else "hurrying the drain")
        end, hurry = self.blocks[-1]
        (end if first else hurry)()


_ending: ContextVar[_Ending | None] = ContextVar("ending", default=None)


@contextlib.contextmanager
def until_signalled(end: _Act, hurry: _Act = lambda: None) -> Iterator[None]:
    """Within the block, call `end` at the first signal and `hurry` at each further one, on the running event loop.

    Outside the main thread signals are somebody else's, and the block changes nothing.

    Raises:
        CancelledError: a signal came in before the block began, in a block around it.
    """
    ending = _ending.get()
    if ending is not None and ending.blocks:
        if ending.signalled:
            from asyncio import CancelledError

            raise CancelledError("a signal came in before this began")
        with _pushed(ending, end, hurry):
            yield
        return
    ending = _Ending()
    _ending.set(ending)
    with _pushed(ending, end, hurry), _installed(ending.take):
        yield


@contextlib.contextmanager
def _pushed(ending: _Ending, end: _Act, hurry: _Act) -> Iterator[None]:
    ending.blocks.append((end, hurry))
    try:
        yield
    finally:
        ending.blocks.pop()


@contextlib.contextmanager
def _installed(take: Callable[[signal.Signals], None]) -> Iterator[None]:
    from asyncio import get_running_loop

    loop, before = get_running_loop(), dict[signal.Signals, Any]()
    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread, or not Unix
        for number in _heeded():
            handler = signal.getsignal(number)
            loop.add_signal_handler(number, take, number)
            before[number] = handler
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def exit_on_signals(code: int | None = None) -> None:
    """From now on end the process at a signal, wherever it is: while it is imported, and where no block is.

    The kernel drops a signal to the first process of a container that has not said what to do with it.

    Args:
        code: what to exit with; None = 128 and the number of the signal, as a shell has it.
    """

    def end(number: int, frame: FrameType | None) -> None:
        _expect_loose_ends()
        raise SystemExit(128 + number if code is None else code)

    _handle(end)
    # Last of all, as it is registered first: an interpreter that ends gives signals back to the kernel, which would
    # end the process by the signal, whatever its exit code was to be.
    atexit.register(_handle, signal.SIG_IGN)


def _expect_loose_ends() -> None:
    """Let Python not warn of what a signal cuts short: a coroutine before its await, a file that was just opened.

    A filter with a text would import `re` here, which the signal may have found half imported.
    """
    warnings.simplefilter("ignore", RuntimeWarning)
    warnings.simplefilter("ignore", ResourceWarning)


def exit_at_once_on_signals(code: int) -> None:
    """From now on end the process at a signal with `code`: all is done, and at most some thread is left to end."""
    _handle(lambda number, frame: os._exit(code))


@contextlib.contextmanager
def signals_handed_to(act: Callable[[int], object]) -> Iterator[None]:
    """Within the block, call `act` with each signal, wherever the process is; for one that hands them on to another."""
    before = _handle(lambda number, frame: act(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(handler: Any) -> dict[signal.Signals, Any]:
    """Set the handler of every signal that ends us; returns those from before."""
    return {number: signal.signal(number, handler) for number in _heeded()}


def _heeded() -> list[signal.Signals]:
    """The signals that end us; not a SIGHUP that was ignored when we were started, as by `nohup`."""
    numbers = [signal.Signals[name] for name in _NAMES if hasattr(signal, name)]  # Windows has no SIGHUP
    return [each for each in numbers if each.name != "SIGHUP" or signal.getsignal(each) is not signal.SIG_IGN]
