"""Stage 4: asking the writer's thread for starts, and handing back what was started for somebody who has gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from inspect import CORO_CLOSED, getcoroutinestate
from typing import Any

from workqueue.backends.answers import ignore, is_answered
from workqueue.backends.sqlite import leasing
from workqueue.backends.sqlite.leasing import LeaseStep, Start
from workqueue.backends.sqlite.store import Arrival, Ask, Settle, Store
from workqueue.backends.sqlite.writer import GroupCommit
from workqueue.clock import Clock
from workqueue.errors import QueueClosedError, StartLostError
from workqueue.handles import HandleStore, Owned, Queued
from workqueue.lease import Lease, LeaseRenewer
from workqueue.metrics import QueueMetrics
from workqueue.optional import Leased, LeaseRequest, RecoveredOrphan
from workqueue.rules import Entry, merge_into_twin, released, started

__all__ = ["Starting", "release_of"]

_Step = asyncio.Future[LeaseStep]
_WithRow = Callable[[Callable[[], Awaitable[LeaseStep]]], Coroutine[Any, Any, LeaseStep]]


class Starting:
    """Starts keys through one handle of a queue.

    Args:
        store: where the verbs of the handles go.
        writer: runs the steps.
        renewer: keeps the leases that they win.
        metrics: counts starts and orphans.
        clock: wall time, for the metrics.
        with_row: runs a step, again if the queue's own row was missing and is put back.
    """

    def __init__(
        self,
        store: HandleStore,
        writer: GroupCommit,
        renewer: LeaseRenewer,
        metrics: QueueMetrics,
        clock: Clock,
        with_row: _WithRow,
    ) -> None:
        self._store = store
        self._writer = writer
        self._renewer = renewer
        self._metrics = metrics
        self._clock = clock
        self._with_row = with_row

    def lease(self, request: LeaseRequest) -> Coroutine[Any, Any, Leased]:
        """Recover orphans and start keys in one transaction (see `LeasingQueue.lease`); asked for when this returns."""
        question = partial(leasing.lease, request=request)
        if not self._writer.is_here():
            return self._lease(question, [])  # handed to the event loop of the queue, or refused there
        asked = [self._ask(question)]
        leasing_them = self._lease(question, asked)

        def hand_back(step: _Step) -> None:  # to one that was cancelled before it began
            if asked and getcoroutinestate(leasing_them) == CORO_CLOSED:
                self._hand_back(step)

        asked[0].add_done_callback(hand_back)
        return leasing_them

    async def _lease(self, question: Callable[[Store], LeaseStep], asked: list[_Step]) -> Leased:
        """The answer of the step that was asked for, and of those that it needs before it can start keys."""
        recovered: list[RecoveredOrphan] = []
        while True:  # only the last step starts keys, once everything that is due has its place
            step = await self._with_row(lambda: self._taken(asked.pop() if asked else self._ask(question)))
            recovered += step.recovered
            self._metrics.expired(len(step.recovered))
            if not step.more_due:
                return Leased(self._hold(step.started), recovered)

    async def start(self, queued: Queued) -> Owned:
        """Start one listed key (see `HandleStore.start`)."""
        step = await self._taken(self._ask(lambda store: leasing.start(store, *queued.version)))
        if not step.started:
            raise StartLostError()
        return self._hold(step.started)[0]

    def _ask(self, question: Callable[[Store], LeaseStep]) -> _Step:
        return self._writer.submit(Ask(question), durable=False)

    async def _taken(self, step: _Step) -> LeaseStep:
        """The answer of `step`; a caller who is cancelled never learns of its keys, so they are handed back."""
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            step.add_done_callback(self._hand_back)
            raise

    def _hand_back(self, step: _Step) -> None:
        if not is_answered(step):
            return
        with contextlib.suppress(QueueClosedError):  # then their leases lapse
            for start in step.result().started:
                self._writer.submit(release_of(start.token, started(start.entry))).add_done_callback(ignore)

    def _hold(self, starts: Sequence[Start]) -> list[Owned]:
        """The handles of what one step started."""
        owned = [
            Owned(self._store, started(start.entry), Lease(start.entry.key, str(start.token)), start.token)
            for start in starts
        ]
        if owned:
            # From when they were stamped, by our clock: the call may have waited for the file longer than a lease.
            self._renewer.hold_all([each.lease for each in owned], starts[0].since_us)
            self._metrics.started_all([start.entry for start in starts], self._clock.wall_us())
        return owned


def release_of(token: int, entry: Entry) -> Settle:
    """The settle that hands the key of a lease back."""
    return Settle(token, entry.key, Arrival(released(entry), partial(merge_into_twin, release=True)))
