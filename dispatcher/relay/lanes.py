"""Whose turn it is: a lane for each target, so that one that is slow or dead does not hold the places of the others.

A request in hand waits for a turn in its lane, but only for a moment. Whoever gets no turn is put off, and its place
is free for requests to other targets. While a target is down nobody waits for it: one request at a time is sent as a
probe, all others are put off at once. What was put off is called back as soon as its lane has room, so that it does
not have to sit out its time.

All of this is what one process knows. What it forgets by a crash comes back by itself, when its time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

from dispatcher.outage import IN_A_ROW, Outage, TargetUnavailableError
from workqueue.clock import Clock, duration_us
from workqueue.errors import StoreError, WorkQueueError
from workqueue.optional import BulkQueue
from workqueue.options import Options
from workqueue.safe_text import cut

__all__ = ["Lanes", "PutOffError", "Turn"]

log = logging.getLogger(__name__)

_PATIENCE_US = duration_us(timedelta(seconds=1))
_TEND_SECONDS = 1.0
_SHORTEST_US = duration_us(timedelta(seconds=5))
_LONGEST_US = duration_us(timedelta(minutes=10))
_REMEMBERED = 10_000
_TOO_LATE_US = duration_us(timedelta(seconds=2))
_WEIGHT = 0.1  # of the newest call in the mean
_FORGOTTEN_US = duration_us(timedelta(minutes=30))  # longer than a request that failed waits for its next try


class PutOffError(WorkQueueError):
    """It is not this request's turn: try again after `delay`; nothing was sent.

    Args:
        delay: how long to wait.
        why: what keeps the lane from taking it.
    """

    def __init__(self, delay: timedelta, why: str) -> None:
        super().__init__(why)
        self.delay = delay


class Turn:
    """The right to call a target once. Whoever has it says what came of the call."""

    def __init__(self, lane: _Lane, key: str, sent: int) -> None:
        self._lane = lane
        self._key = key
        self._sent = sent
        self.is_known = False

    def answered(self) -> None:
        """The target answered, whatever it said."""
        self.is_known = True
        self._lane.answered(self._key)

    def failed(self, error: TargetUnavailableError) -> None:
        """The target could not be reached, or did not answer in time."""
        self.is_known = True
        self._lane.failed(self._key, error, self._sent)


class _Waiter:
    """A request that waits for its turn."""

    __slots__ = ("called", "has_turn", "until_us")

    def __init__(self, until_us: int) -> None:
        self.called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_turn = False
        self.until_us = until_us

    def call(self, *, has_turn: bool) -> None:
        if not self.called.done():
            self.has_turn = has_turn
            self.called.set_result(None)


class _Lane:
    """The calls to one target."""

    def __init__(self, target: str, most: int, clock: Clock) -> None:
        self.outage = Outage()
        self._target = target
        self._most = most
        self._clock = clock
        self._calling = 0
        self._mean_us = 0.0
        self._left_us = clock.steady_us()
        self._waiting: deque[_Waiter] = deque()
        self._sending_away: asyncio.Task[None] | None = None
        self._put_off: dict[str, int] = {}  # to when, in the order in which they were put off

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be remembered of it, or nobody has asked for it in a long time."""
        if self._calling or self._waiting or self._put_off:
            return False
        return not self.outage.in_doubt or self._clock.steady_us() - self._left_us > _FORGOTTEN_US

    async def enter(self, key: str) -> Turn:
        """Wait for a turn.

        Raises:
            PutOffError: there is none to be had soon.
        """
        self._put_off.pop(key, None)
        if self.outage.is_on():
            return self._probe(key)
        if self._calling < self._most and not self._waiting:
            self._calling += 1
        elif not await self._called():
            raise self._put(key)
        return Turn(self, key, self.outage.answers)

    def leave(self, turn: Turn, key: str, took_us: int) -> None:
        """The call is over."""
        self._calling -= 1
        self._left_us = self._clock.steady_us()
        if not turn.is_known:  # cancelled, or it failed before it was sent
            self.outage.unanswered(key)
        self._mean_us += (took_us - self._mean_us) * _WEIGHT if self._mean_us else took_us
        self._call_next()

    def answered(self, key: str) -> None:
        self.outage.answers += 1
        if not self.outage.in_doubt:
            return
        ended = self.outage.answered(key, self._clock.steady_us())
        if ended is not None:
            log.warning("target %s is up again after %.0f s, in which %d calls failed", self._target, *ended)

    def failed(self, key: str, error: TargetUnavailableError, sent: int) -> None:
        verdict = self.outage.failed(key, error, sent, self._clock.steady_us(), last=False)
        if verdict.began:
            message = "target %s is down: %d calls in a row failed; one request at a time probes it: %s"
            log.error(message, self._target, IN_A_ROW, error)
            while self._waiting:
                self._waiting.popleft().call(has_turn=False)

    def callable_back(self) -> list[str]:
        """The requests that were put off and may come now; who is due soon comes by itself."""
        room = self._room()
        found: list[str] = []
        soon_us = self._clock.wall_us() + _TOO_LATE_US
        while self._put_off and len(found) < room:
            key = next(iter(self._put_off))
            if self._put_off.pop(key) > soon_us:
                found.append(key)
        return found

    def _room(self) -> int:
        if self.outage.is_on():
            return int(self.outage.probe_in_us(self._clock.steady_us()) == 0)
        return 0 if self._waiting else 2 * (self._most - self._calling)

    def _probe(self, key: str) -> Turn:
        now_us = self._clock.steady_us()
        if self.outage.probe_in_us(now_us) != 0:
            raise self._put(key)
        self.outage.begins(key, now_us)
        self._calling += 1
        return Turn(self, key, self.outage.answers)

    async def _called(self) -> bool:
        """Wait for a moment; returns whether there is a turn."""
        waiter = _Waiter(self._clock.steady_us() + _PATIENCE_US)
        self._waiting.append(waiter)
        if self._sending_away is None or self._sending_away.done():
            self._sending_away = asyncio.create_task(self._send_away(), name="relay-lane")
        try:
            await waiter.called
        except BaseException:
            if waiter.has_turn:
                self._calling -= 1
                self._call_next()
            with contextlib.suppress(ValueError):  # somebody called it at the same moment
                self._waiting.remove(waiter)
            raise
        return waiter.has_turn

    async def _send_away(self) -> None:
        """End the wait of those who have waited long enough, until nobody waits."""
        # One for all who wait: a timer for each cost a delivery more than its turn.
        while self._waiting:
            left_us = self._waiting[0].until_us - self._clock.steady_us()
            if left_us > 0:
                await self._clock.sleep(left_us / 1e6)
            else:
                self._waiting.popleft().call(has_turn=False)

    def _call_next(self) -> None:
        while self._waiting and self._calling < self._most and not self.outage.is_on():
            waiter = self._waiting.popleft()
            waiter.call(has_turn=True)
            self._calling += waiter.has_turn

    def _put(self, key: str) -> PutOffError:
        """Note that `key` is put off: for as long as those before it take, or again as long as the outage is old."""
        queued_us = len(self._put_off) * self._mean_us / self._most
        outage_us = self.outage.seconds(self._clock.steady_us()) * 1e6
        delay_us = int(min(max(queued_us, outage_us, _SHORTEST_US), _LONGEST_US))
        if len(self._put_off) < _REMEMBERED:
            self._put_off[key] = self._clock.wall_us() + delay_us
        return PutOffError(timedelta(microseconds=delay_us), self._why())

    def _why(self) -> str:
        if self.outage.is_on():
            return cut(f"the target {self._target} is down: {self.outage.error}", 300)
        return f"{self._most} calls to {self._target} are under way"


class _Passage:
    """A turn as a block. A class, since a generator would cost each delivery three times as much."""

    __slots__ = ("_began_us", "_key", "_lane", "_lanes", "_target", "_turn")

    def __init__(self, lanes: Lanes, target: str, key: str) -> None:
        self._lanes = lanes
        self._target = target
        self._key = key

    async def __aenter__(self) -> Turn:
        self._lane, self._turn = await self._lanes.enter(self._target, self._key)
        self._began_us = self._lanes.clock.steady_us()
        return self._turn

    async def __aexit__(self, *exc_info: object) -> None:
        self._lane.leave(self._turn, self._key, self._lanes.clock.steady_us() - self._began_us)
        self._lanes.leave(self._target, self._lane)


class Lanes:
    """The lanes of all targets.

    Args:
        queue: where requests are, to call back those that were put off.
        most: calls at a time to one target.
        clock: judges all times.
    """

    def __init__(self, queue: BulkQueue, most: int, clock: Clock) -> None:
        self._queue = queue
        self._most = most
        self.clock = clock
        self._lanes: dict[str, _Lane] = {}

    def turn(self, target: str, key: str) -> AbstractAsyncContextManager[Turn]:
        """The turn of `key` to call `target`, for as long as the block lasts.

        Raises:
            PutOffError: at its beginning: there is none to be had soon.
        """
        return _Passage(self, target, key)

    async def enter(self, target: str, key: str) -> tuple[_Lane, Turn]:
        """For `turn`: wait for one."""
        lane = self._lanes.get(target)
        if lane is None:
            lane = self._lanes[target] = _Lane(target, self._most, self.clock)
        return lane, await lane.enter(key)

    def leave(self, target: str, lane: _Lane) -> None:
        """For `turn`: it is over."""
        if lane.is_idle:
            self._lanes.pop(target, None)

    def down(self) -> Mapping[str, float]:
        """The targets that are down, and for how many seconds."""
        now_us = self.clock.steady_us()
        return {target: lane.outage.seconds(now_us) for target, lane in self._lanes.items() if lane.outage.is_on()}

    @asynccontextmanager
    async def tended(self) -> AsyncIterator[None]:
        """Call back what was put off, until the block ends."""
        tending = asyncio.create_task(self._tend(), name="relay-lanes")
        try:
            yield
        finally:
            tending.cancel()
            await asyncio.wait((tending,))

    async def _tend(self) -> None:
        while True:
            await self.clock.sleep(_TEND_SECONDS)
            for keys in self._callable_back():
                await self._call_back(keys)

    def _callable_back(self) -> Iterator[list[str]]:
        for target, lane in list(self._lanes.items()):
            if keys := lane.callable_back():
                yield keys
            if lane.is_idle:
                self._lanes.pop(target, None)

    async def _call_back(self, keys: list[str]) -> None:
        """An enqueue without a time pulls a key forward; the payload of the queued one stays."""
        try:
            await self._queue.queue_many([(key, Options()) for key in keys])
        except StoreError as error:
            log.warning("%d requests that were put off come later: %s", len(keys), error)
