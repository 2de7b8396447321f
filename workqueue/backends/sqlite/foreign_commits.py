"""Stage 3: noticing what other processes commit to the file, while somebody here waits for it.

Nothing in SQLite wakes another process. But its data version changes with every commit of another connection, and
asking for it costs a few microseconds. So the writer's thread asks often while there is somebody who waits, and not at
all otherwise.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator

from workqueue.backends.sqlite.opening import Opened
from workqueue.errors import StoreUnavailableError, StoreUnusableError

__all__ = ["ForeignCommits"]

_LIVELY_POLL, _QUIET_POLL, _LIVELY_FOR = 0.025, 0.045, 10.0  # seconds; on average a waiter wakes half of it late


class ForeignCommits:
    """Looks at the data version for those who wait.

    Args:
        rouse: makes the writer's thread call `until_look` again; called on the event loop.
    """

    def __init__(self, rouse: Callable[[], None]) -> None:
        self._rouse = rouse
        self._waiters = 0
        self._looking = False
        self._look_at = self._lively_until = 0.0
        self._version = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Meanwhile, look out for commits of other processes. For the event loop."""
        self._waiters += 1
        if not self._looking:
            self._rouse()
        try:
            yield
        finally:
            self._waiters -= 1

    # on the writer's thread

    def begin(self, opened: Opened) -> None:
        """Take the present version as known."""
        self._connection = opened.connection
        self._same_file = opened.same_file
        self._version = self._data_version()

    def until_look(self) -> float | None:
        """Seconds until the next look; None while nobody waits."""
        # False first: a waiter that comes between these two lines finds it so and rouses the thread, one that came
        # before is counted.
        self._looking = False
        self._looking = self._waiters > 0
        return max(self._look_at - time.monotonic(), 0.001) if self._looking else None

    def look(self) -> bool:
        """Whether another process has committed something, or taken the file away, if it is time to ask."""
        now = time.monotonic()
        if not self._waiters or now < self._look_at:
            return False
        try:
            self._same_file.check_file()
            version = self._data_version()
            news, self._version = version != self._version, version
        except StoreUnusableError:  # who waits looks, and gets this error
            news = True
        except (sqlite3.Error, StoreUnavailableError):  # a file that cannot be read now is asked again
            news = False
        if news:
            self._lively_until = now + _LIVELY_FOR
        self._look_at = now + (_LIVELY_POLL if now < self._lively_until else _QUIET_POLL)
        return news

    def _data_version(self) -> int:
        """A number that changes when another connection has committed; our own commits leave it alone."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
