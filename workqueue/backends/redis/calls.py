"""What a turn is made of: script calls, and the requests that wait to share one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from workqueue.backends.redis.scripts import Argument, Script, script
from workqueue.backends.redis.wire import Reply

__all__ = ["Asker", "Call", "Waiting", "fail", "fail_each", "portions"]

_BYTES_IN_ONE_CALL = 1024 * 1024  # as with their number, so that nobody else waits for long; renewals least of all

# Scripts that change nothing, or nothing that a second time would change again: no answer is kept.
_REPEATABLE = frozenset(
    {"aside", "configure", "counts", "get", "later", "leave", "letters", "snapshot", "wait"}
    | {"page_named", "page_queued", "page_scored"}
)


class Call:
    """One script call: sent until it is answered or its time is up.

    Args:
        name: the script.
        arguments: its own ones.
        deadline: the loop's time until which it is worth sending.
        succeed, fail: receive the reply or the error; one of them is called, once.
        announced: who asks and the number of this request, if the server was told of it before.
    """

    __slots__ = (
        "_announced",
        "_arguments",
        "deadline",
        "fail",
        "header",
        "is_durable",
        "number",
        "script",
        "slot",
        "succeed",
    )

    def __init__(
        self,
        name: str,
        arguments: Sequence[Argument],
        deadline: float,
        succeed: Callable[[Reply], None],
        fail: Callable[[Exception], None],
        announced: tuple[str, int] | None = None,
    ) -> None:
        self.script: Script = script(name)
        self._arguments = arguments
        self.deadline = deadline
        self.succeed = succeed
        self.fail = fail
        self.is_durable = name == "enqueue"
        self.slot = ""
        self.number = 0
        self._announced = announced
        self.header: tuple[Argument, ...] = ()

    def assign(self, number: int, asker: str) -> None:
        """Make this request `number` of `asker`, who is given the kept answer if he asks again."""
        self.slot, self.number = self._announced or ("" if self.script.name in _REPEATABLE else asker, number)

    def arguments(self) -> Sequence[Argument]:
        """What follows the script: number of keys, keys, and arguments as prelude.lua takes them."""
        return (*self.header, self.slot, self.number, *self._arguments)


class Asker(Protocol):
    """Who is given the answer to a request: a future, or what stands in for one."""

    def done(self) -> bool: ...
    def set_result(self, answer: Any, /) -> None: ...
    def set_exception(self, error: Exception, /) -> None: ...


class Waiting:
    """Enqueues or settles that wait to go together: arguments and asker of each request, and its deadline."""

    __slots__ = ("requests",)

    def __init__(self) -> None:
        self.requests: deque[tuple[Sequence[bytes | str], Asker, float]] = deque()

    def take(self, most: int) -> tuple[list[Argument], list[Asker], float]:
        """Arguments, askers and earliest deadline of a call: at most `most` arguments, and about 1 MiB."""
        arguments: list[Argument] = []
        askers: list[Asker] = []
        room = _BYTES_IN_ONE_CALL
        deadline = self.requests[0][2]
        while self.requests and room > 0:
            taken, asker, _ = self.requests[0]
            if arguments and len(arguments) + len(taken) > most:
                break
            self.requests.popleft()
            arguments += taken
            askers.append(asker)
            room -= sum(map(len, taken))
        return arguments, askers, deadline

    def expire(self, now: float, error: Exception) -> None:
        """Fail the requests whose time is up."""
        while self.requests and self.requests[0][2] <= now:
            fail(self.requests.popleft()[1], error)


def portions(items: Sequence[bytes]) -> list[Sequence[bytes]]:
    """`items`, in order, so that no portion of more than one item has more bytes than go in one call."""
    if len(items) == 1 or sum(map(len, items)) <= _BYTES_IN_ONE_CALL:
        return [items]
    middle = len(items) // 2
    return portions(items[:middle]) + portions(items[middle:])


def fail(asker: Asker, error: Exception) -> None:
    """Let `asker`, or whoever awaits it, if anybody still does, have `error`."""
    if not asker.done():
        asker.set_exception(error)


def fail_each(askers: Sequence[Asker], error: Exception) -> None:
    """As `fail`, for each."""
    for asker in askers:
        fail(asker, error)
