"""How requests travel: whatever waits goes in one turn once the connection is free, without lingering.

While a turn is under way, further requests gather and become the next one: enqueues together in one script call,
settles in another. A request that finds the connection free goes when the tasks that can run now have had their say.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any

from workqueue.backends.redis.address import Address, Locator, RedisSettings
from workqueue.backends.redis.calls import Asker, Call, Waiting, fail, fail_each
from workqueue.backends.redis.carrier import Carrier
from workqueue.backends.redis.scripts import Argument
from workqueue.backends.redis.wire import Reply
from workqueue.clock import Clock
from workqueue.errors import QueueClosedError
from workqueue.home import Home

__all__ = ["ENQUEUES_IN_ONE_CALL", "LOST", "Turns"]

LOST = -1
"""What a settle is answered when the lease was lost."""

ENQUEUES_IN_ONE_CALL = 500  # bounds how long one script holds up everybody else: some milliseconds
_SETTLES_IN_ONE_CALL = 300
_NOT_AT_ONCE = frozenset({"wait"})  # asked when keys were just started: they begin first, and may settle in this turn
_ENQUEUES_IN_ONE_TURN, _SETTLES_IN_ONE_TURN, _CALLS_IN_ONE_TURN = 4, 4, 8


class Turns:
    """Carries requests to the master, in turns, for as long as the queue is open.

    Args:
        settings: the connection; `timeout` is how long a request may take, reconnecting included.
        locator: where the master is.
        clock: if given, scripts go by its time instead of the server's.
        on_enqueued: receives the reply of each enqueue call, for metrics.
    """

    def __init__(
        self, settings: RedisSettings, locator: Locator, clock: Clock | None, on_enqueued: Callable[[list[int]], None]
    ) -> None:
        self._on_enqueued = on_enqueued
        self._timeout = settings.timeout.total_seconds()
        # An incarnation, not an owner: a restarted process must not be given its predecessor's answers.
        self.incarnation = secrets.token_urlsafe(9)
        self._carrier = Carrier(self.incarnation, settings, locator, clock, self)
        self._numbers = 0
        self._enqueues = Waiting()
        self._settles = Waiting()
        self._calls: deque[Call] = deque()
        self._is_going = False
        self._task: asyncio.Task[None] | None = None
        self.home = Home()

    async def __aenter__(self) -> Turns:
        self.home.enter()
        self._task = self.home.loop.create_task(self._carrier.run(), name="workqueue-redis")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.home.leave()
        task, self._task = self._task, None
        try:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        finally:  # however often we are cancelled, nobody is to wait for ever
            self._carrier.close(QueueClosedError())
            self.expire(float("inf"), QueueClosedError())

    @property
    def address(self) -> Address:
        """The master, as far as is known."""
        return self._carrier.link.address

    # requests

    def enqueue(self, items: Sequence[bytes | str]) -> asyncio.Future[None]:
        """Store enqueues, packed as enqueue.lua takes them; at most `ENQUEUES_IN_ONE_CALL` in one go."""
        future: asyncio.Future[None] = self._submit(self._enqueues, items)
        return future

    def settle(self, key: bytes, token: str, verb: bytes) -> asyncio.Future[int]:
        """End an attempt; `LOST`, or microseconds until the key is eligible again."""
        future: asyncio.Future[int] = self._submit(self._settles, (key, token, verb))
        return future

    def settle_for(self, asker: Asker, key: bytes, token: str, verb: bytes) -> None:
        """As `settle`, for who takes the answer itself and must not raise: a future and a task are half of the cost."""
        self._submit(self._settles, (key, token, verb), asker)

    def call(
        self,
        name: str,
        *arguments: Argument,
        unclaimed: Callable[[Reply], None] | None = None,
        announced: tuple[str, int] | None = None,
    ) -> asyncio.Future[Reply]:
        """The reply of one script; if the future was cancelled meanwhile, `unclaimed` has it.

        `announced` is who asks, and the number of the request, if Redis knows of it already.
        """
        self.home.check()
        loop = self.home.loop
        future: asyncio.Future[Reply] = loop.create_future()

        def succeed(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)
            elif unclaimed is not None:
                unclaimed(reply)

        self._calls.append(
            Call(name, arguments, loop.time() + self._timeout, succeed, lambda error: fail(future, error), announced)
        )
        self._go(at_once=name not in _NOT_AT_ONCE)
        return future

    def _submit(self, waiting: Waiting, arguments: Sequence[bytes | str], asker: Asker | None = None) -> Any:
        """Returns `asker`, or a future in its place."""
        home = self.home  # `check`, without the call
        if get_ident() != home.thread or not home.is_running():
            raise home.refusal()
        loop = home.loop
        asker = loop.create_future() if asker is None else asker
        waiting.requests.append((arguments, asker, loop.time() + self._timeout))
        self._go()
        return asker

    def _go(self, *, at_once: bool = False) -> None:
        """See to it that what waits goes; if the carrier is not free, it will ask when it is."""
        if at_once:
            self.next_turn()
        elif not self._is_going and self._carrier.is_free:
            self._is_going = True
            self.home.loop.call_soon(self.next_turn)

    # turns

    def next_turn(self) -> None:
        """Send what waits, unless a turn is under way (see `Requests`)."""
        self._is_going = False
        if self._carrier.is_free and self._task is not None and (turn := self._collect()):
            self._carrier.carry(turn)

    def _collect(self) -> list[Call]:
        """Enqueues, then settles, then the rest, so that a lease step finds the slots just freed."""
        turn = _gather(self._enqueues, self._enqueue_call, _ENQUEUES_IN_ONE_TURN)
        turn += _gather(self._settles, self._settle_call, _SETTLES_IN_ONE_TURN)
        turn += [self._calls.popleft() for _ in range(min(len(self._calls), _CALLS_IN_ONE_TURN))]
        for place, call in enumerate(turn):
            self._numbers += 1
            # An answer is kept for each place in a turn: the next turn's overwrites it, and by then it is not needed.
            call.assign(self._numbers, f"{self.incarnation}:{place}")
        return turn

    def _enqueue_call(self) -> Call:
        items, askers, deadline = self._enqueues.take(ENQUEUES_IN_ONE_CALL)

        def succeed(reply: list[int]) -> None:
            self._on_enqueued(reply)
            for asker in askers:
                if not asker.done():
                    asker.set_result(None)

        return Call("enqueue", items, deadline, succeed, lambda error: fail_each(askers, error))

    def _settle_call(self) -> Call:
        arguments, askers, deadline = self._settles.take(3 * _SETTLES_IN_ONE_CALL)

        def succeed(reply: list[int]) -> None:
            for asker, answer in zip(askers, reply, strict=True):
                if not asker.done():
                    asker.set_result(answer)

        return Call("settle", arguments, deadline, succeed, lambda error: fail_each(askers, error))

    def expire(self, now: float, error: Exception) -> None:
        """Fail the requests that wait and whose time is up (see `Requests`)."""
        while self._calls and self._calls[0].deadline <= now:
            self._calls.popleft().fail(error)
        self._enqueues.expire(now, error)
        self._settles.expire(now, error)


def _gather(waiting: Waiting, next_call: Callable[[], Call], most: int) -> list[Call]:
    """At most `most` calls with what waits."""
    calls: list[Call] = []
    while waiting.requests and len(calls) < most:
        calls.append(next_call())
    return calls
