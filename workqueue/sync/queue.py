"""Stage 1: a queue whose verbs are plain functions: each has the asynchronous queue do it, on the background loop.

What a verb means, checks and raises is the asynchronous queue's alone.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Self, TypeVar

from workqueue import interface, optional
from workqueue.backends import open_queue as open_async
from workqueue.clock import Clock
from workqueue.errors import QueueClosedError, UnsupportedError
from workqueue.interface import KeyState
from workqueue.options import Options
from workqueue.paging import PageRequest
from workqueue.safe_text import shown_url
from workqueue.sync.background import PROCESS, Background
from workqueue.sync.handles import Found, Page, QueuedKey, Snapshot, seen
from workqueue.throttle import Configuration

__all__ = ["DEFAULT_TIMEOUT", "Queue", "open_queue"]

_T = TypeVar("_T")
DEFAULT_TIMEOUT = timedelta(seconds=30)

_NEVER = "this queue is not open: use it inside 'with open_queue(…) as queue'"
_GEVENT = (
    "workqueue.sync waits in real threads, which gevent has replaced: enqueue over HTTP or from a process without "
    "gevent, or leave threads alone with monkey.patch_all(thread=False, queue=False)"
)
_MEMORY = (
    "memory:// lives in the process that opened it, and this one was forked from that: open a queue that is shared"
)


def open_queue(url: str, *, timeout: timedelta = DEFAULT_TIMEOUT, clock: Clock | None = None, owner: str = "") -> Queue:
    """The queue at `url`, as a context manager, for any number of threads; nothing is connected before it is entered.

    All queues of a process share one event loop in a background thread. In a forked child a queue of the parent's is
    opened anew at its first call. What is open when the process ends is closed.

    Args:
        url: as for `workqueue.open_queue`.
        timeout: how long a call may take, unless it says otherwise; more than zero.
        clock: where time comes from, for tests.
        owner: as for `workqueue.open_queue`.

    Raises:
        InvalidSettingError, MissingExtraError: as `workqueue.open_queue`.
        UnsupportedError: gevent has replaced the threads of this process.
    """
    if _is_patched():
        raise UnsupportedError(_GEVENT)
    return Queue(lambda: open_async(url, clock=clock, owner=owner), url, timeout)


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


class Queue:
    """A queue of deduplicated keys, for synchronous code (see `open_queue`).

    A call that takes longer than its timeout raises `StoreUnavailableError`: it may have been done, and doing it again
    is safe. A call from a thread that runs an event loop raises `UnsupportedError`, as it would block that loop.
    """

    def __init__(self, make: Callable[[], interface.WorkQueue], url: str, timeout: timedelta) -> None:
        self._make = make
        self._url = url
        self._timeout = timeout
        self._made: Any = make()  # what is wrong with the URL is found here; Any: a receiver lacks verbs, see `_verb`
        self._background: Background | None = None
        self._inherited: list[object] = []  # of the parent's; collected here, a file would be closed under the parent

    def __enter__(self) -> Self:
        self._open(PROCESS.background)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the queue. Calls under way in other threads end with an error."""
        background, self._background = self._background, None
        if background is not None and background is PROCESS.background:
            background.closed(self)
            background.call(self._leave, self._timeout)

    def queue(self, key: str, options: Options = Options(), *, timeout: timedelta | None = None) -> None:
        """Store `key` (see `WorkQueue.queue`). When this returns, the key is kept."""
        self._call(lambda: self._made.queue(key, options), timeout)

    def queue_many(self, items: Iterable[tuple[str, Options]], *, timeout: timedelta | None = None) -> None:
        """Store every key (see `BulkQueue.queue_many`)."""
        listed = list(items)  # here, and not on the loop: a query behind it would hold up every other call
        self._call(lambda: self._made.queue_many(listed), timeout)

    def get(self, key: str, *, timeout: timedelta | None = None) -> KeyState:
        """The state of one key (see `WorkQueue.get`)."""
        state: KeyState = self._call(lambda: self._made.get(key), timeout)
        return state

    def counts(self, *, timeout: timedelta | None = None) -> optional.Counts:
        """How many keys are where (see `CountingQueue.counts`)."""
        counts: optional.Counts = self._call(lambda: self._verb("counts")(), timeout)
        return counts

    def enumerate(self, limit: int = 100, *, timeout: timedelta | None = None) -> Snapshot:
        """Everything in progress, the next `limit` eligible keys, the twins, and the dead letters."""
        return Snapshot.of(self._call(lambda: self._verb("enumerate")(limit), timeout), self._call)

    def find(self, key: str, *, timeout: timedelta | None = None) -> Found:
        """The handles of `key` (see `SearchableQueue.find`)."""
        return Found.of(self._call(lambda: self._verb("find")(key), timeout), self._call)

    def delayed(self, limit: int = 100, *, timeout: timedelta | None = None) -> Sequence[QueuedKey]:
        """The next `limit` keys whose not-before has not passed, soonest first."""
        found = self._call(lambda: self._verb("delayed")(limit), timeout)
        return [seen(QueuedKey, handle, self._call) for handle in found]

    def page(self, request: PageRequest, *, timeout: timedelta | None = None) -> Page:
        """Some keys of one place, from a cursor on (see `PagedQueue.page`)."""
        return Page.of(self._call(lambda: self._verb("page")(request), timeout), request.place, self._call)

    def configure(self, configuration: Configuration, *, timeout: timedelta | None = None) -> None:
        """Replace the stored settings (see `ConfigurableQueue.configure`)."""
        self._call(lambda: self._verb("configure")(configuration), timeout)

    def configuration(self, *, timeout: timedelta | None = None) -> Configuration:
        """The stored settings."""
        stored: Configuration = self._call(lambda: self._verb("configuration")(), timeout)
        return stored

    def _call(self, step: Callable[[], Awaitable[_T]], timeout: timedelta | None = None) -> _T:
        background = PROCESS.background
        if self._background is not background:
            self._reopen(background)
        return background.call(step, timeout or self._timeout)

    def _verb(self, name: str) -> Callable[..., Awaitable[Any]]:
        verb: Callable[..., Awaitable[Any]] | None = getattr(self._made, name, None)
        if verb is None:
            raise UnsupportedError(
                f"{shown_url(self._url)} is a receiver, which queues and gets: {name} takes the queue's own URL"
            )
        return verb

    def _reopen(self, background: Background) -> None:
        if self._background is None:
            raise QueueClosedError(_NEVER)
        if self._url.startswith("memory:"):
            raise QueueClosedError(_MEMORY)
        with background.opening:
            if self._background is not background:
                self._inherited.append(self._made)
                self._made = self._make()
                self._open(background)

    def _open(self, background: Background) -> None:
        background.call(self._made.__aenter__, self._timeout)
        self._background = background
        background.at_exit(self, self._leave)

    async def _leave(self) -> None:
        await self._made.__aexit__(None, None, None)
