"""Stages 1-6: one connection and the turn that is under way on it, sent until every call in it is answered.

A turn whose connection breaks is sent again, with the same numbers, over a new one, to whatever node is the master
then; the scripts answer a request that they carried out already as they did before.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Protocol

from redis.exceptions import RedisError

from workqueue.backends.redis_address import Locator, RedisSettings
from workqueue.backends.redis_calls import Call
from workqueue.backends.redis_errors import CONNECTION_ERRORS, asks_for_script, is_passing, typed_error
from workqueue.backends.redis_link import Link, Reply
from workqueue.backends.redis_scripts import Argument
from workqueue.clock import Clock
from workqueue.errors import StoreError, StoreUnavailableError, StoreUnusableError

__all__ = ["Carrier", "Requests"]

log = logging.getLogger(__name__)

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.02, 1.0  # seconds


class Requests(Protocol):
    """Where a carrier gets its turns from."""

    async def next_turn(self, carrier: Carrier) -> list[Call]:
        """What is to be sent next; waits until there is something."""

    def expire(self, now: float, error: Exception) -> None:
        """Fail the requests that wait for a turn and whose time is up by `now`, the loop's time."""


class Carrier:
    """Carries one turn after the other.

    Args:
        name: tells the carriers of one queue from each other, in kept answers.
        settings: the connection.
        locator: where the master is.
        clock: if given, scripts go by its time instead of the server's.
    """

    def __init__(self, name: str, settings: RedisSettings, locator: Locator, clock: Clock | None) -> None:
        self.name = name
        self.link = Link(settings, locator)
        self._clock = clock
        self._keys = settings.script_keys
        self._mark = f"{settings.meta_key.removesuffix('meta')}answer:{name}:wait"
        self._patience = settings.timeout.total_seconds() / 2  # a silent node is given up in time to try another one
        self._replicas = settings.wait_replicas
        self._under_way: list[Call] = []

    async def run(self, requests: Requests) -> None:
        """Carry turns until cancelled; what is under way then fails by `fail_all`."""
        while True:
            self._under_way = await requests.next_turn(self)
            await self._carry_out(requests)

    def fail_all(self, error: Exception) -> None:
        """Fail what is under way."""
        calls, self._under_way = self._under_way, []
        for call in calls:
            call.fail(error)

    async def _carry_out(self, requests: Requests) -> None:
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
                await self.link.drop()
                self._expire(trouble, requests, is_first=not attempts)
                attempts += 1
                if self._under_way:
                    await asyncio.sleep(_backoff(attempts))
        if attempts:
            log.info("Redis at %s: back after %d attempts", self.link.address, attempts)

    async def _attempt(self) -> Exception | None:
        """Send what is not answered yet; returns why something has to be sent again later, if so."""
        await self.link.open(self._patience)
        turn = self._under_way
        replies: list[Reply] = []
        waits = self._replicas > 0 and any(call.is_durable for call in turn)
        self._stamp(turn)
        try:
            async with asyncio.timeout(self._patience):
                await self.link.exchange(turn, replies, *(self._replication() if waits else ()))
        finally:
            trouble = self._answer(turn, replies, waits)
        return trouble

    def _replication(self) -> Sequence[Sequence[Argument]]:
        """What makes the server wait until replicas have all that this turn wrote, or found written.

        WAIT waits for the last write of its own connection. A turn may have written nothing, because its keys were
        queued already, perhaps by somebody else a moment ago; so it writes something itself.
        """
        return ("SET", self._mark, "", "PX", 60_000), ("WAIT", self._replicas, int(self._patience * 500))

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
                self.link.forget_scripts()
                left.append(call)
            elif isinstance(reply, Exception) and is_passing(reply):
                trouble = reply
                left.append(call)
            elif isinstance(reply, Exception):
                call.fail(typed_error(reply, str(self.link.address)))
            elif call.is_durable and replicas is None:
                left.append(call)  # stored, but whether a replica has it is not known: ask the new master
            elif call.is_durable and replicas is not None and replicas < self._replicas:
                call.fail(_unreplicated(replicas, self._replicas))
            else:
                call.succeed(reply)
        self._under_way = left + turn[len(replies) :]
        return trouble

    def _expire(self, trouble: Exception, requests: Requests, *, is_first: bool) -> None:
        """Fail what is out of time, or everything if waiting cannot help."""
        error = typed_error(trouble, str(self.link.address))
        is_hopeless = isinstance(error, StoreUnusableError)
        if not is_hopeless:
            log.log(logging.WARNING if is_first else logging.DEBUG, "%s; trying again", error)
        now = float("inf") if is_hopeless else asyncio.get_running_loop().time()
        for call in [call for call in self._under_way if call.deadline <= now]:
            self._under_way.remove(call)
            call.fail(error)
        requests.expire(now, error)


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
