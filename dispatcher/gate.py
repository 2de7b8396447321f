"""Stage 3: the gate through which every round on request passes: it admits at most one in a period, and owns them all.

A round belongs to the queue, not to who asked for it. It goes on when the caller hangs up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from starlette.responses import PlainTextResponse, Response

from dispatcher.health import Health
from dispatcher.outage import TargetUnavailableError
from dispatcher.round import Round
from dispatcher.setup import Setup
from dispatcher.waiting import all_done
from workqueue.clock import duration_us, within
from workqueue.errors import StoreError, StoreUnavailableError
from workqueue.safe_text import describe, leaves_of

__all__ = ["RoundGate", "Turn"]

log = logging.getLogger(__name__)


class Turn:
    """A round on request: it waits for its turn, is under way, or is over. Its task is that of the gate's."""

    task: asyncio.Task[None]

    def __init__(self, round_: Round) -> None:
        self.round = round_
        self.began: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Done when the round begins: True; or when it cannot, because the gate was closed: False."""
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        """Done when the round is over: what it failed with, or None."""

    async def answer(self, *, wait: bool) -> Response:
        """What to answer who asked for the round, once it has begun, or with `wait` once it is over."""
        await asyncio.wait((self.began,))  # not awaited itself: our cancellation would be the round's
        if not self.began.result():
            return PlainTextResponse("draining\n", 503)
        if not wait:
            return PlainTextResponse("started\n", 202)
        await asyncio.wait((self.ended,))
        error = self.ended.result()
        if error is None:
            return PlainTextResponse("ok\n")
        return PlainTextResponse(f"{describe(error)}\n", 503 if all(map(_may_pass, leaves_of(error))) else 500)


class RoundGate:
    """Admits rounds, and drains them.

    Args:
        setup: what rounds are made of.
        health: learns whether the store answered.
    """

    def __init__(self, setup: Setup, health: Health) -> None:
        self._setup = setup
        self._health = health
        self._period_us = duration_us(setup.settings.trigger_period)
        self._admitted_us: int | None = None
        self._next: Turn | None = None
        self._under_way: dict[asyncio.Task[None], Turn] = {}

    def admit(self) -> Turn | None:
        """Begin a round now. None, and counted as shed: one was admitted within the period."""
        if self._due_us() > 0:
            self.shed()
            return None
        turn = Turn(Round(self._setup))
        turn.task = asyncio.get_running_loop().create_task(self._run(turn))
        self._begin(turn)
        return turn

    def admit_next(self) -> Turn | None:
        """Begin a round as soon as the period allows. None, and counted as shed: one waits for that already."""
        if self._next is not None:
            self.shed()
            return None
        turn = self._next = Turn(Round(self._setup))
        turn.task = asyncio.get_running_loop().create_task(self._run_when_due(turn))
        return turn

    def shed(self) -> None:
        """Count a call that gets no round of its own."""
        self._setup.metrics.triggers["shed"] += 1

    async def drain(self) -> None:
        """Refuse the round that waits; let those under way run for `drain_timeout`, then cancel them and wait."""
        if self._next is not None:
            self._next.task.cancel()
            self._next.began.set_result(False)
            self._next = None
        seconds = self._setup.settings.drain_timeout.total_seconds()
        with contextlib.suppress(TimeoutError):
            await within(self._setup.clock, seconds, all_done(self._under_way))
        self.hurry()
        await all_done(self._under_way)

    def hurry(self) -> None:
        """Cancel the callbacks of the rounds under way; their keys are released."""
        for turn in self._under_way.values():
            turn.round.stop()

    def _due_us(self) -> int:
        """Microseconds until the next round may begin."""
        if self._admitted_us is None:
            return 0
        return max(self._admitted_us + self._period_us - self._setup.clock.steady_us(), 0)

    def _begin(self, turn: Turn) -> None:
        self._setup.metrics.triggers["dispatched"] += 1
        self._admitted_us = self._setup.clock.steady_us()
        self._under_way[turn.task] = turn
        turn.task.add_done_callback(self._under_way.pop)
        turn.began.set_result(True)

    async def _run_when_due(self, turn: Turn) -> None:
        while (due_us := self._due_us()) > 0:
            await self._setup.clock.sleep(due_us / 1e6)
        self._next = None  # what is asked for from now on may be too late for this round
        self._begin(turn)
        await self._run(turn)

    async def _run(self, turn: Turn) -> None:
        error: BaseException | None = None
        try:
            await turn.round.run()
        except asyncio.CancelledError:
            raise
        except BaseException as raised:  # noqa: BLE001 - even a KeyboardInterrupt fails a round only: the app is not ours
            error = raised
            log.error("round failed: %s", describe(error), extra={"queue": self._setup.metrics.name})
        store_errors = [each for each in leaves_of(error) if isinstance(each, StoreError)] if error else []
        if store_errors:
            self._health.store_failed(store_errors[0])
        else:
            self._health.store_answered()
        turn.ended.set_result(error)


def _may_pass(error: BaseException) -> bool:
    """Whether calling again later may do."""
    return isinstance(error, StoreUnavailableError | TargetUnavailableError)
