"""Whether the queue in Redis is still the one that this process opened, or was flushed or replaced.

A queue notes when it was made. Another time in a later answer means that every key of before is gone. Leases alone
do not show this: it would look as if other owners had taken each key in progress.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from workqueue.clock import Clock

__all__ = ["Birth"]

log = logging.getLogger(__name__)

_REMARK_US = 3_600_000_000  # as long as a probe says so; the log keeps it


class Birth:
    """When this process's queue was made, by what answers said so far. Thread-safe: renewals come from their own.

    Args:
        clock: how long ago it was emptied.
        address: which Redis answers, for the log.
    """

    def __init__(self, clock: Clock, address: Callable[[], object]) -> None:
        self._clock = clock
        self._address = address
        self._seen: set[bytes] = set()  # all of them: an answer from before may arrive after one from since
        self._changing = threading.Lock()
        self._emptied_us: int | None = None

    def look(self, born: bytes) -> None:
        """Log, once, if the queue of this answer is another one than those of the answers before; '' = not known."""
        with self._changing:
            if not born or born in self._seen:
                return
            is_first = not self._seen
            self._seen.add(born)
        if not is_first:
            self._emptied_us = self._clock.steady_us()
            log.critical(
                "Redis at %s was emptied, or its database was replaced: every key that this queue had there is gone, "
                "those in progress here among them; enqueue again what must not be missed",
                self._address(),
            )

    def emptied_within(self, us: int) -> bool:
        """Whether it was seen to be emptied in the last `us` microseconds."""
        return self._emptied_us is not None and self._clock.steady_us() - self._emptied_us <= us

    def remark(self) -> str:
        """What a probe says of it for an hour; '' = nothing. It names no address."""
        if self._emptied_us is None or not self.emptied_within(_REMARK_US):
            return ""
        ago = (self._clock.steady_us() - self._emptied_us) / 1e6
        return f"the store was emptied or replaced {ago:.0f} s ago: every key that it had is gone"
