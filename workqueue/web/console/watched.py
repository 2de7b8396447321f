"""One queue that a console is about: its last hour, its sweeps, and what its dispatchers say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from workqueue.clock import Clock, SystemClock
from workqueue.equipment import Equipment
from workqueue.errors import WorkQueueError
from workqueue.fallbacks import FullQueue
from workqueue.optional import Counts
from workqueue.safe_text import describe
from workqueue.telemetry.standing import Standing
from workqueue.web.console.history import History, Sample
from workqueue.web.console.sweeps import Sweeps

__all__ = ["AskDispatchers", "Watched", "rates_of"]

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10.0


AskDispatchers = Callable[[], Awaitable[Sequence[Standing]]]
"""Asks every dispatcher that is known how it fares; never raises."""


class Watched:
    """A queue under a name, looked at once in a period.

    Args:
        name: what it is called in URLs and in the log.
        queue: any queue.
        period: how often it is looked at.
        ask: its dispatchers; None = nobody knows of any.
    """

    def __init__(
        self, name: str, queue: FullQueue, period: timedelta, ask: AskDispatchers | None, clock: Clock | None = None
    ) -> None:
        self.name = name
        self.queue = queue
        self.history = History(period)
        self.sweeps = Sweeps(name, queue, clock or SystemClock())
        self.standings: Sequence[Standing] = ()
        self.trouble = ""
        self._ask = ask
        self._own_name = Equipment.of(queue).name
        self._period = period

    @property
    def asks(self) -> bool:
        """Whether there are dispatchers to ask."""
        return self._ask is not None

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._period.total_seconds())

    async def look(self) -> None:
        """Take a sample now."""
        counts = await self._counted()
        if self._ask is not None:
            said = await self._ask()
            self.standings = [each for each in said if each.queue in ("", self._own_name)]
        self.history.add(Sample(datetime.now(UTC), counts, *rates_of(self.standings)))

    async def _counted(self) -> Counts | None:
        """The counts, or None; a store that goes or comes is logged once."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                counts = await self.queue.counts()
        except (WorkQueueError, TimeoutError) as error:
            if not self.trouble:
                log.warning("the queue cannot be counted: %s", describe(error), extra={"queue": self.name})
            self.trouble = describe(error)
            return None
        if self.trouble:
            log.info("the queue can be counted again", extra={"queue": self.name})
        self.trouble = ""
        return counts


def rates_of(standings: Sequence[Standing]) -> tuple[float | None, Mapping[str, float]]:
    """Starts a second, None if no dispatcher says, and outcomes a second, of all dispatchers together."""
    starts = [each.starts_per_second for each in standings if each.starts_per_second is not None]
    outcomes: dict[str, float] = {}
    for standing in standings:
        for outcome, rate in standing.per_second.items():
            outcomes[outcome] = outcomes.get(outcome, 0.0) + rate
    return sum(starts) if starts else None, outcomes
