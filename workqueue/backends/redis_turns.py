"""Stages 1-6: how requests travel: whatever waits goes in one turn once the connection is free, without lingering.

One turn is under way at a time. While it is, further requests gather and become the next turn: enqueues together in one
script call, settles in another. A turn whose connection breaks is sent again, with the same numbers, over a new one, to
whatever node is the master then; the scripts answer a request that they carried out already as they did before.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from workqueue.backends.redis_address import RedisSettings
from workqueue.backends.redis_calls import Call, Waiting, fail, fail_each
from workqueue.backends.redis_errors import CONNECTION_ERRORS, asks_for_script, is_passing, typed_error
from workqueue.backends.redis_link import Link, Reply
from workqueue.backends.redis_scripts import Argument
from workqueue.clock import Clock
from workqueue.errors import QueueClosedError, StoreError, StoreUnavailableError, StoreUnusableError

__all__ = ["ENQUEUES_IN_ONE_CALL", "LOST", "Turns"]

log = logging.getLogger(__name__)

LOST = -1
"""What a settle is answered when the lease was lost."""

ENQUEUES_IN_ONE_CALL = 500  # bounds how long one script holds up everybody else: some milliseconds
_SETTLES_IN_ONE_CALL = 300
_ENQUEUES_IN_ONE_TURN, _SETTLES_IN_ONE_TURN, _CALLS_IN_ONE_TURN = 4, 4, 8
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.02, 1.0  # seconds


class Turns:
    """Carries requests to the master, in turns, for as long as the queue is open.

    Args:
        settings: the connection; `timeout` is how long a request may take, reconnecting included.
        link: the connection to use.
        clock: if given, scripts go by its time instead of the server's.
        on_enqueued: receives the reply of each enqueue call, for metrics.
    """

    def __init__(
        self, settings: RedisSettings, link: Link, clock: Clock | None, on_enqueued: Callable[[list[int]], None]
    ) -> None:
        self._link = link
        self._clock = clock
        self._on_enqueued = on_enqueued
        self._keys = settings.script_keys
        self._answers = settings.meta_key.removesuffix("meta") + "answer:"
        self._timeout = settings.timeout.total_seconds()
        self._replicas = settings.wait_replicas
        # An incarnation, not an owner: a restarted process must not be given its predecessor's answers.
        self.incarnation = secrets.token_urlsafe(9)
        self._numbers = 0
        self._enqueues = Waiting()
        self._settles = Waiting()
        self._calls: deque[Call] = deque()
        self._under_way: list[Call] = []
        self._idle: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Turns:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="workqueue-redis-turns")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._fail_all(QueueClosedError())
        await self._link.drop()

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
        if self._task is None or self._loop is None:
            raise QueueClosedError()
        return self._loop, self._loop.create_future()

    def _go(self) -> None:
        idle = self._idle
        if idle is not None and not idle.done():
            idle.set_result(None)

    # turns

    async def _run(self) -> None:
        assert self._loop is not None
        while True:
            if not (self._calls or self._enqueues.requests or self._settles.requests):
                self._idle = self._loop.create_future()
                await self._idle
            self._under_way = self._collect()
            await self._carry_out()

    def _collect(self) -> list[Call]:
        """The next turn: enqueues, then settles, then the rest, so that a lease step finds the slots just freed."""
        turn = _gather(self._enqueues, self._enqueue_call, _ENQUEUES_IN_ONE_TURN)
        turn += _gather(self._settles, self._settle_call, _SETTLES_IN_ONE_TURN)
        turn += [self._calls.popleft() for _ in range(min(len(self._calls), _CALLS_IN_ONE_TURN))]
        for place, call in enumerate(turn):
            self._numbers += 1
            # An answer is kept for each place in a turn: the next turn's overwrites it, and by then it is not needed.
            call.assign(self._numbers, f"{self.incarnation}:{place}")
        return turn

    def _enqueue_call(self) -> Call:
        items, futures, deadline = self._enqueues.take(ENQUEUES_IN_ONE_CALL)

        def succeed(reply: list[int]) -> None:
            self._on_enqueued(reply)
            for future in futures:
                if not future.done():
                    future.set_result(None)

        return Call("enqueue", items, deadline, succeed, lambda error: fail_each(futures, error))

    def _settle_call(self) -> Call:
        arguments, futures, deadline = self._settles.take(3 * _SETTLES_IN_ONE_CALL)

        def succeed(reply: list[int]) -> None:
            for future, answer in zip(futures, reply, strict=True):
                if not future.done():
                    future.set_result(answer)

        return Call("settle", arguments, deadline, succeed, lambda error: fail_each(futures, error))

    async def _carry_out(self) -> None:
        """Send the turn until every call is answered or out of time."""
        attempts = 0
        while self._under_way:
            try:
                trouble = await self._attempt()
            except (*CONNECTION_ERRORS, RedisError, StoreError) as error:
                trouble = error
            except Exception as error:  # a bug, perhaps; those who wait must hear of it, and the next turn must go
                log.exception("a turn failed")
                trouble = StoreUnusableError(f"a turn failed: {type(error).__name__}: {error}")
            if trouble is not None:
                await self._link.drop()
                self._expire(trouble, is_first=not attempts)
                attempts += 1
                if self._under_way:
                    await asyncio.sleep(_backoff(attempts))
        if attempts:
            log.info("Redis at %s: back after %d attempts", self._link.address, attempts)

    async def _attempt(self) -> Exception | None:
        """Send what is not answered yet; returns why something has to be sent again later, if so."""
        patience = self._timeout / 2  # a silent node is given up early enough to try another one
        await self._link.open(patience)
        turn = self._under_way
        replies: list[Reply] = []
        waits = self._replicas > 0 and any(call.is_durable for call in turn)
        self._stamp(turn)
        try:
            async with asyncio.timeout(patience):
                await self._link.exchange(turn, replies, *self._replication(int(patience * 500) if waits else 0))
        finally:
            trouble = self._answer(turn, replies, waits)
        return trouble

    def _replication(self, milliseconds: int) -> Sequence[Sequence[Argument]]:
        """What makes the server wait until replicas have all that this turn wrote, or found written.

        WAIT waits for the last write of its own connection. A turn may have written nothing, because its keys were
        queued already, perhaps by somebody else a moment ago; so it writes something itself.
        """
        if not milliseconds:
            return ()
        mark = f"{self._answers}{self.incarnation}:wait"
        return ("SET", mark, "", "PX", 60_000), ("WAIT", self._replicas, milliseconds)

    def _stamp(self, turn: list[Call]) -> None:
        clock = self._clock
        now: tuple[Argument, ...] = ("", "") if clock is None else (clock.wall_us(), clock.steady_us())
        for call in turn:
            call.header = (*self._keys, *now)

    def _answer(self, turn: list[Call], replies: list[Reply], waits: bool) -> Exception | None:
        """Hand the replies out; calls without one, and those to be repeated, stay under way."""
        replicas = _waited(replies[len(turn) :]) if waits else self._replicas
        left: list[Call] = []
        trouble: Exception | None = next((r for r in replies[len(turn) :] if isinstance(r, Exception)), None)
        for call, reply in zip(turn, replies, strict=False):
            if isinstance(reply, Exception) and asks_for_script(reply):
                self._link.forget_scripts()
                left.append(call)
            elif isinstance(reply, Exception) and is_passing(reply):
                trouble = reply
                left.append(call)
            elif isinstance(reply, Exception):
                call.fail(typed_error(reply, str(self._link.address)))
            elif call.is_durable and replicas is None:
                left.append(call)  # stored, but whether a replica has it is not known: ask the new master
            elif call.is_durable and replicas is not None and replicas < self._replicas:
                call.fail(_unreplicated(replicas, self._replicas))
            else:
                call.succeed(reply)
        self._under_way = left + turn[len(replies) :]
        return trouble

    # trouble

    def _expire(self, trouble: Exception, *, is_first: bool) -> None:
        """Fail what is out of time, or everything if waiting cannot help."""
        error = typed_error(trouble, str(self._link.address))
        if isinstance(error, StoreUnusableError):
            return self._fail_all(error)
        assert self._loop is not None
        log.log(logging.WARNING if is_first else logging.DEBUG, "%s; trying again", error)
        now = self._loop.time()
        for call in [call for call in self._under_way if call.deadline <= now]:
            self._under_way.remove(call)
            call.fail(error)
        while self._calls and self._calls[0].deadline <= now:
            self._calls.popleft().fail(error)
        self._enqueues.expire(now, error)
        self._settles.expire(now, error)
        return None

    def _fail_all(self, error: Exception) -> None:
        calls = [*self._under_way, *self._calls]
        self._under_way = []
        self._calls.clear()
        for call in calls:
            call.fail(error)
        self._enqueues.expire(float("inf"), error)
        self._settles.expire(float("inf"), error)


def _gather(waiting: Waiting, next_call: Callable[[], Call], most: int) -> list[Call]:
    return [next_call() for _ in range(most) if waiting.requests]


def _backoff(attempts: int) -> float:
    longest = min(_FIRST_BACKOFF * (1 << min(attempts - 1, 10)), _LONGEST_BACKOFF)
    return longest * (0.5 + random.random() / 2)


def _waited(replies: list[Reply]) -> int | None:
    """How many replicas have everything, from the replies to `_replication`; None = not known."""
    answered = len(replies) == 2 and not any(isinstance(reply, Exception) for reply in replies)
    return int(replies[1]) if answered else None


def _unreplicated(have: int, wanted: int) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"stored, but in time only {have} of {wanted} replicas (wait_replicas) had it; enqueue again"
    )
