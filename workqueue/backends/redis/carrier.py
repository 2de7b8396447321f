"""One connection and the turn that is under way on it, sent until every call in it is answered.

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

from workqueue.backends.redis.address import Locator, RedisSettings
from workqueue.backends.redis.calls import Call
from workqueue.backends.redis.errors import CONNECTION_ERRORS, asks_for_script, is_passing, typed_error
from workqueue.backends.redis.link import Done, Link
from workqueue.backends.redis.scripts import Argument
from workqueue.backends.redis.wire import Reply
from workqueue.clock import Clock
from workqueue.errors import StoreError, StoreUnavailableError, StoreUnusableError

__all__ = ["Carrier", "Requests"]

log = logging.getLogger(__name__)

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.02, 1.0  # seconds


class Requests(Protocol):
    """Where a carrier gets its turns from."""

    def next_turn(self) -> None:
        """The carrier is free: `carry` what waits, if anything does."""

    def expire(self, now: float, error: Exception) -> None:
        """Fail the requests that wait for a turn and whose time is up by `now`, the loop's time."""


class Carrier:
    """Carries one turn after the other, and is driven by one of two at a time.

    While the connection holds, replies drive it: `carry` sends a turn, `_answered` takes the replies and asks for the
    next. No task stands in between. When the connection breaks, or none is open, `run` drives: a task, which alone may
    wait. It connects, sends what is left, and waits for the replies, until every call of the turn has ended. `_broken`
    says that it is the task's turn; a carrier is free when nothing is under way and nothing is broken.

    Args:
        name: whose kept answers they are.
        settings: the connection.
        locator: where the master is.
        clock: if given, scripts go by its time instead of the server's.
        requests: asked for the next turn once one was carried.
    """

    def __init__(
        self, name: str, settings: RedisSettings, locator: Locator, clock: Clock | None, requests: Requests
    ) -> None:
        self.link = Link(settings, locator)
        self._requests = requests
        self._clock = clock
        self._keys = settings.script_keys
        self._mark = f"{settings.meta_key.removesuffix('meta')}answer:{name}:wait"
        self._patience = settings.timeout.total_seconds() / 2  # a silent node is given up in time to try another one
        self._replicas = settings.wait_replicas
        self._under_way: list[Call] = []
        self._waits = False  # whether replicas are waited for in this turn
        self._silence: asyncio.TimerHandle | None = None
        self._broken = asyncio.Event()
        self._trouble: Exception | None = None  # what broke
        self._is_down = False  # as was logged: an outage has one line at its begin and one at its end

    @property
    def is_free(self) -> bool:
        return not self._under_way and not self._broken.is_set()

    # driven by replies

    def carry(self, turn: list[Call]) -> None:
        """Send `turn`, until every call in it is answered or out of time; only while free."""
        self._under_way = turn
        if not self.link.is_open:
            return self._broken.set()
        try:
            self._send(self._answered)
        except Exception as error:  # noqa: BLE001 - handed on to those who wait, by `run`
            self._break(error)

    def _answered(self, replies: list[Reply], lost: Exception | None) -> None:
        """The turn is answered, or as much of it as will be."""
        if lost is None and not self._waits and not any(isinstance(reply, Exception) for reply in replies):
            return self._hand_out(replies)
        trouble = self._took(replies) or lost
        if self._under_way:
            self._break(trouble)
        else:
            self._requests.next_turn()
        return None

    def _hand_out(self, replies: list[Reply]) -> None:
        """Nearly always: nothing is amiss, so the next turn goes first, and the store works on it meanwhile."""
        turn, self._under_way = self._under_way, []
        self._hush()
        self._requests.next_turn()
        for call, reply in zip(turn, replies, strict=True):
            try:
                call.succeed(reply)
            except Exception as error:  # noqa: BLE001 - a bug, of which those who wait must hear
                call.fail(_known(error))

    def _break(self, trouble: Exception | None) -> None:
        self._trouble = trouble
        self._broken.set()

    # driven by a task

    async def run(self) -> None:
        """Connect when there is something to carry, and mend what broke, until cancelled."""
        while True:
            await self._broken.wait()
            await self._mend()
            self._broken.clear()
            self._requests.next_turn()

    def close(self, error: Exception) -> None:
        """Close the connection and fail what is under way; `run` has ended before."""
        self._hush()
        self.link.drop()
        calls, self._under_way = self._under_way, []
        for call in calls:
            call.fail(error)

    async def _mend(self) -> None:
        """Send what is under way until every call is answered or out of time."""
        attempts = 0
        trouble, self._trouble = self._trouble, None
        while self._under_way:
            if trouble is not None:
                self.link.drop()
                self._expire(_known(trouble))
                attempts += 1
                await asyncio.sleep(_backoff(attempts) if self._under_way else 0)
            if self._under_way:
                trouble = await self._attempt()
        if trouble is None and self._is_down:
            self._is_down = False
            log.info("Redis at %s answers again", self.link.address)

    async def _attempt(self) -> Exception | None:
        """Send what is not answered yet; returns why something has to be sent again later, if so."""
        answered: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        def done(replies: list[Reply], lost: Exception | None) -> None:
            trouble = self._took(replies) or lost
            if not answered.done():
                answered.set_result(trouble)

        try:
            await self.link.open(self._patience)
            self._send(done)
            return await answered
        except Exception as error:  # noqa: BLE001 - `_expire` separates a bug from the rest
            return error

    # driven by either

    def _send(self, done: Done) -> None:
        turn = self._under_way
        self._waits = self._replicas > 0 and any(call.is_durable for call in turn)
        self._stamp(turn)
        self.link.send(turn, self._replication() if self._waits else (), done)
        self._silence = asyncio.get_running_loop().call_later(self._patience, self.link.give_up, TimeoutError())

    def _took(self, replies: list[Reply]) -> Exception | None:
        """Hand the replies out; returns why a call has to be sent again, if one has."""
        self._hush()
        try:
            return self._answer(replies)
        except Exception as error:  # noqa: BLE001 - handed on to those who wait, as what broke
            return error

    def _hush(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

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

    def _answer(self, replies: list[Reply]) -> Exception | None:
        """Hand the replies out; calls without one, and those to be repeated, stay under way."""
        turn = self._under_way
        replicas = _waited(replies[len(turn) :]) if self._waits else self._replicas
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
        if replicas is not None and replicas < self._replicas:
            self.link.drop()  # perhaps its replicas follow another master by now: look for it
        self._under_way = left + turn[len(replies) :]
        return trouble

    def _expire(self, trouble: Exception) -> None:
        """Fail what is out of time, or everything if waiting cannot help."""
        error = typed_error(trouble, str(self.link.address))
        is_hopeless = isinstance(error, StoreUnusableError)
        if not is_hopeless:
            log.log(logging.DEBUG if self._is_down else logging.WARNING, "%s; trying again", error)
            self._is_down = True
        now = float("inf") if is_hopeless else asyncio.get_running_loop().time()
        for call in [call for call in self._under_way if call.deadline <= now]:
            self._under_way.remove(call)
            call.fail(error)
        self._requests.expire(now, error)


def _known(trouble: Exception) -> Exception:
    """A bug, perhaps, as an error of ours: those who wait must hear of it, and the next turn must go."""
    if isinstance(trouble, (*CONNECTION_ERRORS, RedisError, StoreError)):
        return trouble
    log.error("a turn failed", exc_info=trouble)
    return StoreUnusableError(f"a turn failed: {type(trouble).__name__}: {trouble}")


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
