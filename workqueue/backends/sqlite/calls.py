"""Calls to the writer's thread: what each asks for, and how its answer reaches the caller.

Callers are on the event loop, or in a thread of their own: the lease renewer must not wait for an event loop that a
callback blocks. The writer treats both alike.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from workqueue.backends.sqlite.store import Step

__all__ = ["Asker", "Call", "LoopCall", "Outbox", "ThreadCall"]

log = logging.getLogger(__name__)


class Asker(Protocol):
    """Who hears the answer of a call on the event loop: a future, or what stands in for one and must not raise."""

    def done(self) -> bool:
        """Whether nobody waits any more; asked on either thread."""

    def set_result(self, answer: Any, /) -> None: ...
    def set_exception(self, error: Exception, /) -> None: ...


_Answer = tuple[Asker, Any, Exception | None]


class Call(Protocol):
    """One call that waits for its step to be committed. The methods run on the writer's thread."""

    @property
    def step(self) -> Step:
        """What to run; its answer is left in it."""

    @property
    def durable(self) -> bool:
        """Whether the answer must survive a power cut."""

    @property
    def since(self) -> float:
        """When the call was made, by `time.monotonic`."""

    def is_wanted(self) -> bool:
        """Whether the caller still waits."""

    def answer(self, error: Exception | None) -> None:
        """Let the caller go on: its step is committed, or `error` is the reason why not."""


class Outbox:
    """Answers on their way to the event loop. Those of one commit go together: waking the loop is what costs.

    Args:
        loop: the event loop on which the callers wait.
        path: the file, for the log.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str) -> None:
        self._loop = loop
        self._path = path
        self.answers: list[_Answer] = []
        """What the next `send` takes along; `put` adds to it."""

    def put(self, waiting: Asker, answer: Any = None, error: Exception | None = None) -> None:
        """Have the next `send` answer `waiting` with `answer`, or with `error` if there is one."""
        self.answers.append((waiting, answer, error))

    def send(self, then: Callable[[], None] | None = None) -> None:
        """Answer all of them on the event loop, then call `then` there."""
        answers, self.answers = self.answers, []
        try:
            self._loop.call_soon_threadsafe(_deliver, answers, then)
        except RuntimeError:  # the loop was closed without closing the queue; nobody waits any more
            log.debug("the event loop of the queue at %s is gone", self._path)


def _deliver(answers: list[_Answer], then: Callable[[], None] | None) -> None:
    for waiting, answer, error in answers:
        if waiting.done():  # cancelled, or answered before the writer failed
            continue
        if error is None:
            waiting.set_result(answer)
        else:
            waiting.set_exception(error)
    if then is not None:
        then()


@dataclass(slots=True, eq=False)
class LoopCall:
    """A call from the event loop, answered there through the outbox."""

    step: Step
    durable: bool
    waiting: Asker
    outbox: Outbox
    since: float = field(default_factory=time.monotonic)

    def is_wanted(self) -> bool:
        return not self.waiting.done()  # not answered yet, so a future that is done was cancelled

    def answer(self, error: Exception | None) -> None:
        self.outbox.answers.append((self.waiting, self.step.answer, error))  # `put`, without the call


class ThreadCall:
    """A call from another thread, which blocks in `wait` meanwhile. It need not survive a power cut.

    Args:
        step: what to run.
    """

    durable = False

    def __init__(self, step: Step) -> None:
        self.step = step
        self.since = time.monotonic()
        self._answered = threading.Event()
        self._given_up = False
        self._error: Exception | None = None

    def is_wanted(self) -> bool:
        return not self._given_up

    def answer(self, error: Exception | None) -> None:
        self._error = error
        self._answered.set()

    def wait(self, timeout: float) -> Any:
        """The answer of the step, once it is committed.

        Raises:
            TimeoutError: there was no answer within `timeout` seconds; a step that was not begun never runs.
            Exception: the reason why the step was not committed.
        """
        if not self._answered.wait(timeout):
            self._given_up = True
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self.step.answer
