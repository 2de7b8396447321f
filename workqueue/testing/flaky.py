"""For tests: a queue that fails on demand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Self, TypeVar, cast

from workqueue.errors import StoreUnavailableError
from workqueue.fallbacks import FullQueue, with_fallbacks
from workqueue.interface import KeyState, QueuedKey, Snapshot, WorkQueue
from workqueue.optional import Counts, Found, Leased, LeaseRequest
from workqueue.options import Options
from workqueue.paging import Page, PageRequest
from workqueue.throttle import Configuration

__all__ = ["FlakyQueue"]

_T = TypeVar("_T")


@dataclass
class _Failure:
    """Calls that are to fail: with what, for which key (None = any), how many more, on which side of the store."""

    error: Exception
    key: str | None
    times: int
    after: bool


class FlakyQueue:
    """A queue that fails the calls a test chooses; what is not chosen goes through.

    A failure *before* is a store that did nothing; one *after* is an answer that was lost on its way: the store did it,
    and the caller does not know.

    Args:
        queue: does the work; its optional Protocols, and its `name`, `metrics`, `clock` and so on, show through.
    """

    def __init__(self, queue: WorkQueue) -> None:
        self._queue: FullQueue = with_fallbacks(queue)
        self._failures: dict[str, list[_Failure]] = {}
        self.exact = self._queue.exact
        self.equipment = self._queue.equipment
        self.calls: list[tuple[str, str | None]] = []
        """Every call and the key that it was about, if any, in order."""

    def fail(
        self,
        call: str,
        error: Exception | None = None,
        *,
        key: str | None = None,
        times: int = 1,
        after: bool = False,
    ) -> None:
        """Let the next `times` calls of the verb `call` fail, on the queue or on any handle that it gave out.

        Args:
            call: the verb, such as `queue`, `lease`, `start`, `complete`, `requeue`, `dead_letter` or `release`.
            error: what is raised; by default a StoreUnavailableError.
            key: fail only calls about this key.
            times: how many calls fail.
            after: whether the store does it before the answer is lost.
        """
        failure = _Failure(error or StoreUnavailableError(f"{call} failed on purpose"), key, times, after)
        self._failures.setdefault(call, []).append(failure)

    def mend(self, call: str) -> None:
        """Let the verb `call` fail no more."""
        self._failures.pop(call, None)

    def asked(self, call: str) -> int:
        """How often the verb `call` was called so far, on the queue or on any handle that it gave out."""
        return sum(name == call for name, _ in self.calls)

    async def call(self, name: str, key: str | None, step: Callable[[], Awaitable[_T]]) -> _T:
        """Take `step`, unless it was chosen to fail. For this class and its handles."""
        self.calls.append((name, key))
        failure = self._due(name, key)
        if failure is not None and not failure.after:
            raise failure.error
        answer = await step()
        if failure is not None:
            _forget(answer)
            raise failure.error
        return answer

    def _due(self, name: str, key: str | None) -> _Failure | None:
        for failure in self._failures.get(name, ()):
            if failure.times > 0 and failure.key in (None, key):
                failure.times -= 1
                return failure
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    async def __aenter__(self) -> Self:
        await self._queue.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._queue.__aexit__(*exc_info)

    async def queue(self, key: str, options: Options = Options()) -> None:
        await self.call("queue", key, lambda: self._queue.queue(key, options))

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        await self.call("queue_many", None, lambda: self._queue.queue_many(items))

    async def enumerate(self, limit: int = 100) -> Snapshot:
        found = await self.call("enumerate", None, lambda: self._queue.enumerate(limit))
        letters = (self._flaky(letter) async for letter in found.dead_letters)
        return Snapshot(self._each(found.in_progress), self._each(found.queued), self._each(found.twins), letters)

    async def get(self, key: str) -> KeyState:
        return await self.call("get", key, lambda: self._queue.get(key))

    async def lease(self, request: LeaseRequest) -> Leased:
        leased = await self.call("lease", None, lambda: self._queue.lease(request))
        return replace(leased, started=self._each(leased.started))

    async def counts(self) -> Counts:
        return await self.call("counts", None, self._queue.counts)

    async def find(self, key: str) -> Found:
        found = await self.call("find", key, lambda: self._queue.find(key))
        handles = (found.queued, found.in_progress, found.dead_letter)
        return Found(*(handle and self._flaky(handle) for handle in handles))  # type: ignore[arg-type]

    async def delayed(self, limit: int = 100) -> Sequence[QueuedKey]:
        return self._each(await self.call("delayed", None, lambda: self._queue.delayed(limit)))

    async def page(self, request: PageRequest) -> Page:
        page = await self.call("page", None, lambda: self._queue.page(request))
        return replace(page, keys=self._each(page.keys))

    async def wait(self, timeout: timedelta, concurrency: int) -> None:
        await self.call("wait", None, lambda: self._queue.wait(timeout, concurrency))

    async def configure(self, configuration: Configuration) -> None:
        await self.call("configure", None, lambda: self._queue.configure(configuration))

    async def configuration(self) -> Configuration:
        return await self.call("configuration", None, self._queue.configuration)

    def _each(self, handles: Sequence[_T]) -> list[_T]:
        return [self._flaky(handle) for handle in handles]

    def _flaky(self, handle: _T) -> _T:
        return cast(_T, _FlakyHandle(self, handle))


class _FlakyHandle:
    """Any handle, its verbs going through `FlakyQueue.call`."""

    _VERBS = frozenset({"start", "drop", "complete", "requeue", "dead_letter", "release"})

    def __init__(self, queue: FlakyQueue, handle: Any) -> None:
        self._queue = queue
        self._handle = handle

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._handle, name)
        if name not in self._VERBS:
            return attribute

        async def verb(*args: Any, **options: Any) -> Any:
            answer = await self._queue.call(name, self._handle.key, lambda: attribute(*args, **options))
            return _FlakyHandle(self._queue, answer) if name == "start" else answer

        return verb


def _forget(answer: object) -> None:
    """Nobody learns of leases that were in a lost answer, so nobody renews them."""
    for owned in answer.started if isinstance(answer, Leased) else (answer,):
        if hasattr(owned, "abandon"):
            owned.abandon()
