"""Stage 5: an event loop that a callback blocks, watched from a thread: logged, and its overdue keys given up.

Who blocks the loop cannot be cancelled, and the probes that would have the process restarted are not served meanwhile.
But leases are renewed from a thread: without this watch the keys of such a process would stay its own for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta

from dispatcher.running import END_GRACE, CallbackRun
from workqueue.clock import Clock, duration_us
from workqueue.interface import OwnedInProgressKey

__all__ = ["LoopWatch"]

log = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 1.0
_BLOCKED_US = duration_us(timedelta(seconds=5))
_END_GRACE_US = duration_us(END_GRACE)
_FRAMES = 8


class LoopWatch:
    """Watches the event loop that it is started in.

    Args:
        runs: the callbacks under way in it; read from the watch's thread.
        clock: judges how long the loop has not moved, and calls `look`.
        queue: the queue's name, for the log.
    """

    def __init__(self, runs: Mapping[OwnedInProgressKey, CallbackRun], clock: Clock, queue: str) -> None:
        self._runs = runs
        self._clock = clock
        self._extra = {"queue": queue}
        self._asked_us: int | None = None
        self._is_logged = False
        self._left: set[OwnedInProgressKey] = set()
        self._stop: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin to watch the running loop; once is enough."""
        if self._stop is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.get_ident()
            self._stop = self._clock.pump(self.look, _LOOK_EVERY_SECONDS)

    def stop(self) -> None:
        """Watch no more."""
        if self._stop is not None:
            self._stop()

    def look(self, now_us: int) -> None:
        """See whether the loop has moved since the last look, and act on it if it has not for long."""
        if not self._runs:  # nobody who could block it, and an idle process should cost nothing
            return
        if self._asked_us is None:
            self._asked_us = now_us
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing runs any more
                self._loop.call_soon_threadsafe(self._answer)
        elif now_us - self._asked_us >= _BLOCKED_US:
            self._log_once(now_us - self._asked_us)
            self._leave_overdue(now_us)

    def _answer(self) -> None:
        self._asked_us = None
        if self._is_logged:
            log.warning("the event loop moves again", extra=self._extra)
            self._is_logged = False
            self._left.clear()

    def _log_once(self, blocked_us: int) -> None:
        if self._is_logged:
            return
        self._is_logged = True
        frame = sys._current_frames().get(self._thread)
        where = "".join(traceback.format_stack(frame, _FRAMES)) if frame else ""
        message = "the event loop has not moved for %.0f s; a callback that blocks it should be a plain function:\n%s"
        log.warning(message, blocked_us / 1e6, where.rstrip(), extra=self._extra)

    def _leave_overdue(self, now_us: int) -> None:
        """Let go of the keys that the loop itself would have given up by now, so that somebody else can have them."""
        for owned, run in list(self._runs.items()):
            if owned not in self._left and now_us >= run.deadline_us + _END_GRACE_US:
                self._left.add(owned)
                owned.abandon()
                extra = {"key": owned.key, **self._extra}
                log.error(
                    "key %r is left to its lease: its callback is overdue in a blocked loop", owned.key, extra=extra
                )
