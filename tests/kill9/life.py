"""One life of a process under test: enqueue what was not accepted yet, dispatch until nothing is left, or die trying.

`python -m tests.kill9.life` has everything imported once and forks: for each line that it reads
(`WORKSPACE KILL_POINT KEYS`) a life that is killed there and one that goes on, all lines at the same time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from dispatcher import Attempt, Dispatcher, DispatcherSettings, ErrorEvent
from tests.kill9.ledger import Ledger
from tests.kill9.stages import FatalQueue, KillPoint
from workqueue import Options, Outcome, QueueKey, QueueKeys, RequeueAfter, StoreUnavailableError, open_queue
from workqueue.fallbacks import FullQueue
from workqueue.metrics import EventResult

CONCURRENCY = 4
_TRIES = 6  # to reach the store; each takes as long as its `timeout`
_T = TypeVar("_T")
log = logging.getLogger(__name__)


def queue_url(workspace: Path) -> str:
    """A short lease, so that what a dead process held comes back soon; long enough for a machine that is busy."""
    chosen = workspace / "url"  # a test of another backend says where its queue is
    if chosen.exists():
        return chosen.read_text()
    return f"sqlite:///{workspace}/queue.db?lease=3s&renew=500ms"


class Reconciler:
    """Completes, fails once, asks to be requeued, or asks for a child, as the key's number says."""

    def __init__(self, ledger: Ledger, point: KillPoint) -> None:
        self._ledger = ledger
        self._point = point

    async def __call__(self, key: str, attempt: Attempt) -> Outcome | None:
        self._ledger.enter(key)
        self._ledger.write("begin", key, attempt.attempts)
        self._point.reach("call", "before")
        await asyncio.sleep(random.random() / 100)
        self._point.reach("call", "after")
        kind = hash_of(key) % 4
        how = "completed"
        if kind == 1 and attempt.attempts == 1:
            how = "failed"
        elif kind == 2 and not self._asked_before(key):
            how = "requeued"
        self._ledger.write("end", key, attempt.attempts, how)
        self._ledger.leave(key)
        if how == "failed":
            raise ValueError("the first attempt of this key fails")
        if how == "requeued":
            return RequeueAfter(timedelta(milliseconds=10))
        return QueueKeys(QueueKey(f"{key}/child")) if kind == 3 and "/" not in key else None

    def _asked_before(self, key: str) -> bool:
        return any(line.key == key and line.how == "requeued" for line in self._ledger.read())


class Errors:
    """Error events that go to the ledger, with a kill point before and after each is handed over."""

    def __init__(self, ledger: Ledger, point: KillPoint) -> None:
        self.results: dict[EventResult, int] = {"sent": 0, "failed": 0, "dropped": 0}
        self._ledger = ledger
        self._point = point

    def send(self, event: ErrorEvent) -> None:
        self._point.reach("tell", "before")
        self._ledger.write("told", event.key, event.attempts, event.failure.action)
        self._point.reach("tell", "after")

    async def flush(self, timeout: timedelta) -> None:
        """Nothing is ever under way."""

    async def give_up(self) -> None:
        """Nothing is ever under way."""


def hash_of(key: str) -> int:
    """The number in a key's name."""
    return int(key.split("/")[0].removeprefix("key-"))


async def live(workspace: Path, point: KillPoint, keys: int) -> None:
    """One life, from opening the queue to its last key."""
    ledger = Ledger(workspace, CONCURRENCY)
    async with AsyncExitStack() as stack:
        # Patient here too: a life may begin while a dead master has no successor yet.
        opened = await patiently(
            ledger, lambda: stack.enter_async_context(open_queue(queue_url(workspace), owner="life"))
        )
        queue: Any = FatalQueue(opened, point)
        settings = DispatcherSettings(concurrency=CONCURRENCY, backoff=lambda _: timedelta(milliseconds=20))
        async with Dispatcher(queue, Reconciler(ledger, point), settings, errors=Errors(ledger, point)):
            await produce(queue, ledger, keys)
            while await patiently(ledger, partial(left, opened)):  # noqa: ASYNC110 - another life's keys are awaited too
                await asyncio.sleep(0.05)


async def produce(queue: Any, ledger: Ledger, keys: int) -> None:
    """Enqueue every key that no earlier life got an answer for."""
    accepted = {line.key for line in ledger.read() if line.what == "accepted"}
    for key in (f"key-{number}" for number in range(keys)):
        if key not in accepted:
            await patiently(ledger, partial(queue.queue, key, Options()))
            ledger.write("accepted", key)


async def patiently(ledger: Ledger, step: Callable[[], Awaitable[_T]]) -> _T:
    """`step`, again while the store is unavailable, which the ledger notes: the test says whether it may be."""
    for _ in range(_TRIES - 1):
        try:
            return await step()
        except StoreUnavailableError as error:
            ledger.write("unavailable", "", how=str(error))
    return await step()


async def left(queue: FullQueue) -> int:
    """How many keys are queued or in progress."""
    counts = await queue.counts()
    return counts.queued + counts.not_before + counts.twins + counts.in_progress


def _life(workspace: Path, point: str, keys: int) -> None:
    logging.basicConfig(filename=workspace / "log", level=logging.INFO)
    logging.getLogger("dispatcher.report").setLevel(logging.WARNING)  # where a key failed, which it does on purpose
    random.seed(f"{workspace.name}{point}")
    asyncio.run(live(workspace, KillPoint(point), keys))


def _two_lives(workspace: Path, point: str, keys: int) -> None:
    first = _ended(_in_child(_life, workspace, point, keys))
    second = _ended(_in_child(_life, workspace, "never", keys))
    os.write(sys.stdout.fileno(), f"{workspace} {first} {second}\n".encode())


def _in_child(function: Callable[[Path, str, int], None], workspace: Path, point: str, keys: int) -> int:
    """Fork a process that runs `function` and ends; returns its pid."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        function(workspace, point, keys)
        status = 0
    except BaseException:
        log.exception("this life ended badly")
    finally:
        os._exit(status)


def _ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Two lives for each line on standard input, all at once; prints how each of them ended."""
    for store in ("redis", "sqlite"):
        import_module(f"workqueue.backends.{store}.backend")  # or each life would take as long again to do so
    for child in [_in_child(_two_lives, Path(line[0]), line[1], int(line[2])) for line in map(str.split, sys.stdin)]:
        _ended(child)


if __name__ == "__main__":
    main()
