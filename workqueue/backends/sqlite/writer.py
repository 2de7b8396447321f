"""The one thread that writes a SQLite file, and group commit.

Whatever calls wait when the thread is free go into one transaction (`commit`), share an fsync, and are answered
together by one hand-over to the event loop. Nothing lingers for company: a call that comes alone is committed alone.
Only when starts were answered just now does an fsync wait 0.2 ms for what their callbacks ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from threading import get_ident
from typing import Any

from workqueue.backends.sqlite.calls import Asker, Call, LoopCall, Outbox, ThreadCall
from workqueue.backends.sqlite.commit import Commits, OpenFile
from workqueue.backends.sqlite.errors import translated
from workqueue.backends.sqlite.file import QueueFile
from workqueue.backends.sqlite.foreign_commits import ForeignCommits
from workqueue.backends.sqlite.store import Change, Step
from workqueue.errors import QueueClosedError, StoreUnavailableError, StoreUnusableError, WorkQueueError
from workqueue.home import Home

__all__ = ["GroupCommit"]

log = logging.getLogger(__name__)

_KEYS_AT_ONCE = 1000  # so that a batch holds the file's lock for about 20 ms at most


class _Signal(Enum):
    CLOSE = auto()
    LOOK = auto()


class GroupCommit:
    """Runs steps in transactions on a thread of its own.

    Args:
        file: the file.
        open_file: opens it.
        on_change: called on the event loop after commits, ours and other processes', with what they may have changed.
        home: where the queue is open; entered by `open`.
    """

    def __init__(self, file: QueueFile, open_file: OpenFile, on_change: Callable[[Change], None], home: Home) -> None:
        self._file = file
        self._open_file = open_file
        self._on_change = on_change
        self._home = home
        self._calls: queue.SimpleQueue[Call | _Signal] = queue.SimpleQueue()
        self._foreign = ForeignCommits(partial(self._calls.put, _Signal.LOOK))
        self._closing = True  # until it is open
        self._thread: threading.Thread | None = None
        self._go_on = True

    # from the event loop

    async def open(self) -> None:
        """Start the thread and open the file.

        Raises:
            StoreUnusableError, StoreUnavailableError: as `open_queue_file`.
            QueueClosedError: it was open before.
        """
        self._home.enter()
        self._loop = self._home.loop
        self._outbox = Outbox(self._loop, self._file.path)
        opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self._thread = threading.Thread(target=self._run, args=(opened,), name="workqueue-sqlite", daemon=True)
        self._thread.start()
        try:
            await asyncio.shield(opened)
        except asyncio.CancelledError:
            self._home.leave()
            self._stop()
            opened.add_done_callback(lambda done: done.exception())
            raise
        except Exception:  # the thread has ended: who calls now must be refused, or would wait for ever
            self._closing, self._thread = True, None
            self._home.undo()
            raise

    def is_here(self) -> bool:
        """Whether it is open, and this is its event loop."""
        return not self._closing and self._home.is_here()

    def submit(self, step: Step, *, durable: bool = True) -> asyncio.Future[Any]:
        """Have `step` run in the next transaction; the future has its answer when it is committed.

        Raises:
            QueueClosedError: `open` was not called yet, or `close` was, or this is another event loop.
            StoreUnusableError: the queue was opened only to look at it.
        """
        if self._closing:  # before `open` there is no loop for a future
            raise self._refusal()
        waiting: asyncio.Future[Any] = asyncio.Future(loop=self._loop)  # `create_future`, without the call
        self.submit_for(waiting, step, durable=durable)
        return waiting

    def submit_for(self, asker: Asker, step: Step, *, durable: bool = True) -> None:
        """As `submit`, for who takes the answer itself and must not raise."""
        home = self._home  # `check`, without the call
        if self._closing or get_ident() != home.thread or not home.is_running():
            raise self._refusal()
        self._calls.put(LoopCall(step, durable, asker, self._outbox))

    async def close(self) -> None:
        """Answer every call that waits, then close the file."""
        if self._thread is None:
            return
        if not self._closing:
            self._stop()
        await asyncio.shield(self._ended)
        self._thread.join()  # it has nothing left to do

    def watching(self) -> contextlib.AbstractContextManager[None]:
        """Meanwhile, look out for commits of other processes."""
        return self._foreign.watching()

    def _stop(self) -> None:
        self._closing = True
        self._calls.put(_Signal.CLOSE)

    def _refusal(self) -> WorkQueueError:
        if self._file.read_only and get_ident() == self._home.thread:
            return StoreUnusableError(f"{self._file.path} was opened with read_only=true: only to look at it")
        return self._home.refusal()

    # from any other thread

    def run(self, step: Step, timeout: float) -> Any:
        """The answer of `step`, for a thread other than the event loop's. It is not made durable.

        Raises:
            StoreUnavailableError: it was not committed within `timeout` seconds.
            StoreError: as SQLite says.
        """
        if self._closing:
            raise StoreUnavailableError("the queue is closed")
        call = ThreadCall(step)
        self._calls.put(call)
        try:
            return call.wait(timeout)
        except TimeoutError:
            raise StoreUnavailableError(f"{self._file.path}: no answer within {timeout:.1f} s") from None

    # on the writer's thread

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            commits = self._opened()
        except Exception as error:  # noqa: BLE001 - whoever opens the queue gets it
            self._outbox.put(opened, error=translated(error, self._file.path))
            self._outbox.send()
            return
        self._outbox.put(opened)
        self._outbox.send()
        try:
            while self._go_on:
                self._serve(commits)
        except Exception:
            log.exception("the SQLite writer of %s ended; open the queue again", self._file.path)
        finally:
            self._closing = True
            self._close(commits)
            self._refuse_what_is_left()
            self._outbox.put(self._ended)
            self._outbox.send()

    def _close(self, commits: Commits) -> None:
        try:
            commits.close()
        except Exception:  # whoever waits for the end, or for an answer, must get it all the same
            log.exception("%s was not closed in order; nothing that was acknowledged is lost", self._file.path)

    def _opened(self) -> Commits:
        store, opened = self._open_file()
        try:
            self._foreign.begin(opened)
            return Commits(self._file, store, opened, self._outbox, self._on_change)
        except BaseException:
            store.connection.close()
            raise

    def _serve(self, commits: Commits) -> None:
        """Commit what waits, or sync what was committed, or look whether another process has committed something."""
        batch = self._next_batch(commits.until_sync if commits.owes_sync else self._foreign.until_look())
        if batch:
            self._commit(commits, batch)
        if commits.is_sync_due or not batch:
            commits.sync()
        if self._foreign.look():
            self._outbox.send(partial(self._on_change, Change.ELSEWHERE))

    def _commit(self, commits: Commits, batch: Sequence[Call]) -> None:
        try:
            commits.commit(batch)
        except Exception as error:  # the thread ends, and nobody else would answer them
            for call in batch:
                call.answer(error)
            raise

    def _next_batch(self, timeout: float | None) -> list[Call]:
        """The calls that wait; for the first one, wait up to `timeout` seconds, None = for ever."""
        batch: list[Call] = []
        keys = 0
        with contextlib.suppress(queue.Empty):
            item = self._calls.get(timeout=timeout)
            while True:
                if item is _Signal.CLOSE:
                    self._go_on = False
                elif not isinstance(item, _Signal):
                    batch.append(item)
                    keys += item.step.keys
                if keys >= _KEYS_AT_ONCE:
                    break
                item = self._calls.get_nowait()
        return batch

    def _refuse_what_is_left(self) -> None:
        """Answer the calls that came too late."""
        while not self._calls.empty():
            item = self._calls.get()
            if not isinstance(item, _Signal):
                item.answer(QueueClosedError())
