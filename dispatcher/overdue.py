"""Stage 5: run times: a callback that runs too long is cancelled, and given up if it then does not end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta

from dispatcher.running import END_GRACE, CallbackRun
from workqueue.clock import Clock, duration_us
from workqueue.interface import OwnedInProgressKey

__all__ = ["RunTimes"]

_LOOK_US = duration_us(timedelta(milliseconds=100))
_NEVER_US = 10**15


class RunTimes:
    """Watches the run times of the callbacks of one event loop.

    Args:
        runs: those under way.
        clock: judges how long they have run.
        shortest: how long a callback may run at least unless its key has a deadline.
        give_up: called with a run that was asked to end and has not within `END_GRACE`.
    """

    def __init__(
        self,
        runs: Mapping[OwnedInProgressKey, CallbackRun],
        clock: Clock,
        shortest: timedelta,
        give_up: Callable[[CallbackRun], None],
    ) -> None:
        self._runs = runs
        self._clock = clock
        self._give_up = give_up
        # No callback that begins while this sleeps is due before it wakes, unless run times are very short indeed.
        self._longest_us = max(min(duration_us(shortest), duration_us(END_GRACE)), _LOOK_US)
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch; once is enough."""
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._look_again_and_again())

    async def stop(self) -> None:
        """Watch no more."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))

    async def _look_again_and_again(self) -> None:
        while True:
            await self._clock.sleep(min(self._look(), self._longest_us) / 1e6)

    def _look(self) -> int:
        """Act on what is due by now; returns in how many microseconds the next one will be."""
        now_us, next_us = self._clock.steady_us(), _NEVER_US
        for run in self._runs.values():
            if run.stage == "settling" or run.is_left:
                continue
            if now_us >= run.deadline_us:
                self._end(run)
            next_us = min(next_us, max(run.deadline_us - now_us, _LOOK_US))
        return next_us

    def _end(self, run: CallbackRun) -> None:
        if run.stage == "ending":
            self._give_up(run)
        else:
            run.time_out()
