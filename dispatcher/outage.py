"""Stage 3: the target cannot be reached: starts pause, one key at a time probes, nothing is spent.

Without it a reconciler that is down for an hour would use up the attempts of the whole backlog and dead-letter it.
"""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from typing import NamedTuple

from workqueue.clock import duration_us
from workqueue.errors import InfrastructureError

__all__ = ["Outage", "TargetUnavailableError"]

log = logging.getLogger(__name__)

_IN_A_ROW = 5
_FIRST_PROBE_US = duration_us(timedelta(seconds=1))
_LAST_PROBE_US = duration_us(timedelta(seconds=60))
_REMEMBERED = 10_000  # released keys; one that another dispatcher takes never comes back here to be forgotten


class TargetUnavailableError(InfrastructureError):
    """What is to be called for each key cannot be reached; raise it from a callback of your own for the like.

    Args:
        cause: the underlying error.
        reached: the connection was up and broke during the call, so that the key itself may be what broke it. Its
            attempt is spent when that happens to the key twice in a row. One that was never made is spent only if the
            target has answered other calls since it failed this key before: then it is the key that cannot be called.
    """

    def __init__(self, cause: BaseException | str, *, reached: bool = False) -> None:
        super().__init__(cause)
        self.reached = reached


class _Released(NamedTuple):
    """A key that was handed back: how many calls had been answered by then, and whether a call for it ever broke."""

    answers: int
    broke: bool


_NEVER = _Released(sys.maxsize, broke=False)


class Outage:
    """Whether starts are paused because the target is down. All times are steady microseconds."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._in_a_row = 0
        self._answers = 0  # while some key is in doubt
        self._released: dict[str, _Released] = {}
        self._since_us: int | None = None
        self._delay_us = 0
        self._probe_us = 0
        self._probing = False

    def starts(self, room: int, now_us: int) -> int:
        """How many of `room` keys may be started now: all of them, or one when a probe is due."""
        if self._since_us is None:
            return room
        if self._probing or now_us < self._probe_us:
            return 0
        return min(room, 1)

    def probe_started(self) -> None:
        """The key that `starts` let pass was started."""
        self._probing = self._since_us is not None

    def probe_in_us(self, now_us: int) -> int | None:
        """Microseconds until the next probe may start; None when starts are not paused, or a probe is under way."""
        return None if self._since_us is None or self._probing else max(self._probe_us - now_us, 0)

    def unavailable(self, key: str, error: TargetUnavailableError, now_us: int) -> bool:
        """A call could not be made or broke off; returns whether its key is to be released rather than failed."""
        self._in_a_row += 1
        if self._since_us is None and self._in_a_row >= _IN_A_ROW:
            self._pause(error, now_us)
        elif self._probing:
            self._probing = False
            self._delay_us = min(self._delay_us * 2, _LAST_PROBE_US)
            self._probe_us = now_us + self._delay_us
        last = self._released.pop(key, _NEVER)
        if self._answers > last.answers or (error.reached and last.broke):
            return False
        self._released[key] = _Released(self._answers, error.reached or last.broke)
        if len(self._released) > _REMEMBERED:
            del self._released[next(iter(self._released))]
        return True

    def unanswered(self) -> None:
        """A call ended without an answer: if it was the probe, another one may start."""
        self._probing = False

    def reachable(self, key: str, now_us: int) -> None:
        """A call was answered, however."""
        self._in_a_row = 0
        self._answers += 1
        self._released.pop(key, None)
        if self._since_us is not None:
            seconds = (now_us - self._since_us) / 1e6
            log.warning("the target is reachable again after %.0f s; starts resume", seconds, extra=self._extra)
            self._since_us = None
            self._probing = False

    @property
    def in_doubt(self) -> bool:
        """Whether a call that is answered has to be noted."""
        return bool(self._in_a_row or self._released)

    @property
    def _extra(self) -> dict[str, str]:
        return {"queue": self._queue}

    def _pause(self, error: TargetUnavailableError, now_us: int) -> None:
        log.error(
            "the target was unavailable %d times in a row; starts pause, one key probes it: %s",
            self._in_a_row,
            error,
            extra=self._extra,
        )
        self._since_us = now_us
        self._delay_us = _FIRST_PROBE_US
        self._probe_us = now_us + self._delay_us
