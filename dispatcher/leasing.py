"""Stage 4: lease steps: one, or those of a loop, which overlap while there is plenty to start.

A store that is asked for one step after the other waits while callbacks run, and then they wait for it. So a loop asks
for a part of its slots at a time: the store works on the next part, and on the keys that were completed meanwhile,
while the callbacks of this one run. On Redis that is 1.8 times as many keys a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from typing import NamedTuple

from dispatcher.report import Reports
from dispatcher.setup import Setup
from workqueue.optional import Leased, PipelinedQueue, offers

__all__ = ["LeaseStep", "LeaseSteps", "lease_keys"]

log = logging.getLogger(__name__)

_WORTH_A_STEP = 16  # slots: a step costs Redis as much as 17 keys, whatever it starts


async def lease_keys(setup: Setup, limit: int) -> Leased:
    """One lease step: recover orphans, start up to `limit` keys; counts and reports the orphans.

    It must not be cancelled: keys that it started are the caller's to settle or release.
    """
    leased = await setup.queue.lease(setup.settings.lease_request(limit))
    _report_orphans(setup, leased)
    return leased


def _report_orphans(setup: Setup, leased: Leased) -> None:
    if not leased.recovered:
        return
    now_us = setup.clock.wall_us()
    try:
        setup.metrics.recovered(leased.recovered, now_us)
        Reports(setup.metrics.name, setup.errors).recovered(leased.recovered, now_us)
    except Exception:  # a sink that raises must not cost the keys that were started in the same step
        log.exception("orphans could not be reported", extra={"queue": setup.metrics.name})


class LeaseStep(NamedTuple):
    """A lease step that was asked for: the most keys that it starts, and its answer."""

    limit: int
    answer: Awaitable[Leased]


class LeaseSteps:
    """The lease steps of one loop that are under way, in the order of their answers.

    Args:
        setup: what is leased, and within which limits.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        concurrency, most = setup.settings.concurrency, 1
        if offers(setup.queue, PipelinedQueue):
            most = max(min(setup.queue.lease_steps, concurrency // _WORTH_A_STEP), 1)
        self._most = most
        self._part = -(-concurrency // most)
        self._under_way: deque[LeaseStep] = deque()
        self._is_plenty = False

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    @property
    def slots(self) -> int:
        """How many slots they may fill."""
        return sum(step.limit for step in self._under_way)

    def ask(self, room: int) -> None:
        """Ask for `room` more keys; where there may be too few of them, only if nothing is under way."""
        is_plenty, self._is_plenty = self._is_plenty, False  # unless the next answer says so
        if self._most > 1 and is_plenty:
            while room > 0 and len(self) < self._most:
                step = self._step(min(room, self._part))
                self._under_way.append(LeaseStep(step.limit, asyncio.ensure_future(step.answer)))
                room -= step.limit
        if not self:
            self._under_way.append(self._step(room))  # without a task, which would come between a wake-up and its start

    def _step(self, room: int) -> LeaseStep:
        request = self._setup.settings.lease_request(room, comes_back=True)
        return LeaseStep(request.limit, self._setup.queue.lease(request))

    async def take(self) -> tuple[Leased, bool]:
        """The answer to the oldest of them, and whether it found fewer keys than it was asked for.

        Raises:
            StoreError: the store failed it.
        """
        step = self._under_way.popleft()
        leased = await step.answer
        _report_orphans(self._setup, leased)
        is_short = len(leased.started) < step.limit
        self._is_plenty = step.limit > 0 and not is_short
        return leased, is_short
