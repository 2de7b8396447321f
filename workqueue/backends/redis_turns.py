"""Stages 1-6: how requests travel: whatever waits goes in one turn once a connection is free, without lingering.

While a turn is under way, further requests gather and become the next one: enqueues together in one script call,
settles in another. There are two connections, so that Redis has something to do while this process works on an answer;
the second one takes calls that need not wait, and its share when so much waits that splitting it is worth the overhead.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from workqueue.backends.redis_address import Address, Locator, RedisSettings
from workqueue.backends.redis_calls import Call, Waiting, fail, fail_each
from workqueue.backends.redis_carrier import Carrier
from workqueue.backends.redis_link import Reply
from workqueue.backends.redis_scripts import Argument
from workqueue.clock import Clock
from workqueue.errors import QueueClosedError

__all__ = ["ENQUEUES_IN_ONE_CALL", "LOST", "Turns"]

LOST = -1
"""What a settle is answered when the lease was lost."""

ENQUEUES_IN_ONE_CALL = 500  # bounds how long one script holds up everybody else: some milliseconds
_SETTLES_IN_ONE_CALL = 300
_ENQUEUES_IN_ONE_TURN, _SETTLES_IN_ONE_TURN, _CALLS_IN_ONE_TURN = 4, 4, 8
_CARRIERS = 2
_WORTH_A_TURN = 32  # requests


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
        self._carriers = [Carrier(f"{self.incarnation}:{n}", settings, locator, clock) for n in range(_CARRIERS)]
        self._carrying: set[str] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._numbers = 0
        self._enqueues = Waiting()
        self._settles = Waiting()
        self._calls: deque[Call] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Turns:
        self._loop = asyncio.get_running_loop()
        self._tasks = [asyncio.create_task(carrier.run(self), name="workqueue-redis") for carrier in self._carriers]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.expire(float("inf"), QueueClosedError())
        for carrier in self._carriers:
            carrier.fail_all(QueueClosedError())
            await carrier.link.drop()

    @property
    def address(self) -> Address:
        """The master, as far as is known."""
        return next((c.link.address for c in self._carriers if c.link.is_open), self._carriers[0].link.address)

    # requests

    def enqueue(self, items: Sequence[Argument]) -> asyncio.Future[None]:
        """Store enqueues, packed as enqueue.lua takes them; at most `ENQUEUES_IN_ONE_CALL` in one go."""
        return self._submit(self._enqueues, items)

    def settle(self, key: bytes, token: str, verb: bytes) -> asyncio.Future[int]:
        """End an attempt; `LOST`, or microseconds until the key is eligible again."""
        return self._submit(self._settles, (key, token, verb))

    def call(self, name: str, *arguments: Argument) -> asyncio.Future[Reply]:
        """The reply of one script."""
        loop, future = self._new_future()

        def succeed(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        self._calls.append(
            Call(name, arguments, loop.time() + self._timeout, succeed, lambda error: fail(future, error))
        )
        self._go()
        return future

    def _submit(self, waiting: Waiting, arguments: Sequence[Argument]) -> asyncio.Future[Any]:
        loop, future = self._new_future()
        waiting.requests.append((arguments, future, loop.time() + self._timeout))
        self._go()
        return future

    def _new_future(self) -> tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]:
        if not self._tasks or self._loop is None:
            raise QueueClosedError()
        return self._loop, self._loop.create_future()

    def _go(self) -> None:
        """Wake an idle carrier, if what waits is not for one that is awake or will soon be free."""
        if self._idle:
            awake = _CARRIERS - len(self._carrying) - len(self._idle)
            if (not awake and (self._calls or not self._carrying)) or self._waiting() >= (1 + awake) * _WORTH_A_TURN:
                self._idle.pop().set_result(None)

    def _waiting(self) -> int:
        return len(self._enqueues.requests) + len(self._settles.requests)

    # turns

    async def next_turn(self, carrier: Carrier) -> list[Call]:
        """What is to be sent next (see `Requests`)."""
        assert self._loop is not None
        self._carrying.discard(carrier.name)
        while not (self._calls or self._enqueues.requests or self._settles.requests):
            idle = self._loop.create_future()
            self._idle.append(idle)
            await idle
        turn = self._collect(carrier.name)
        self._carrying.add(carrier.name)
        self._go()
        return turn

    def _collect(self, asker: str) -> list[Call]:
        """Enqueues, then settles, then the rest, so that a lease step finds the slots just freed."""
        free = _CARRIERS - len(self._carrying)
        is_shared = self._waiting() >= free * _WORTH_A_TURN
        turn = _gather(self._enqueues, self._enqueue_call, _ENQUEUES_IN_ONE_TURN, free if is_shared else 1)
        turn += _gather(self._settles, self._settle_call, _SETTLES_IN_ONE_TURN, free if is_shared else 1)
        turn += [self._calls.popleft() for _ in range(min(len(self._calls), _CALLS_IN_ONE_TURN))]
        for place, call in enumerate(turn):
            self._numbers += 1
            # An answer is kept for each place in a turn: the next turn's overwrites it, and by then it is not needed.
            call.assign(self._numbers, f"{asker}:{place}")
        return turn

    def _enqueue_call(self, requests: int) -> Call:
        items, futures, deadline = self._enqueues.take(requests, ENQUEUES_IN_ONE_CALL)

        def succeed(reply: list[int]) -> None:
            self._on_enqueued(reply)
            for future in futures:
                if not future.done():
                    future.set_result(None)

        return Call("enqueue", items, deadline, succeed, lambda error: fail_each(futures, error))

    def _settle_call(self, requests: int) -> Call:
        arguments, futures, deadline = self._settles.take(requests, 3 * _SETTLES_IN_ONE_CALL)

        def succeed(reply: list[int]) -> None:
            for future, answer in zip(futures, reply, strict=True):
                if not future.done():
                    future.set_result(answer)

        return Call("settle", arguments, deadline, succeed, lambda error: fail_each(futures, error))

    def expire(self, now: float, error: Exception) -> None:
        """Fail the requests that wait and whose time is up (see `Requests`)."""
        while self._calls and self._calls[0].deadline <= now:
            self._calls.popleft().fail(error)
        self._enqueues.expire(now, error)
        self._settles.expire(now, error)


def _gather(waiting: Waiting, next_call: Callable[[int], Call], most: int, sharers: int) -> list[Call]:
    """At most `most` calls with this carrier's share of what waits."""
    left = -(-len(waiting.requests) // sharers)
    calls: list[Call] = []
    while left > 0 and len(calls) < most:
        before = len(waiting.requests)
        calls.append(next_call(left))
        left -= before - len(waiting.requests)
    return calls
