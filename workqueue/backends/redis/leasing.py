"""A lease step in Redis: orphans are recovered and keys started, atomically, and their leases held."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from inspect import CORO_CLOSED, getcoroutinestate
from typing import Any, Protocol

from workqueue.backends.answers import ignore, is_answered
from workqueue.backends.redis.announced import Announced
from workqueue.backends.redis.aside import log_set_aside
from workqueue.backends.redis.records import key_bytes, key_text, unpack_entry
from workqueue.backends.redis.scripts import Argument
from workqueue.backends.redis.turns import Turns
from workqueue.backends.redis.wire import Reply
from workqueue.clock import LATEST_US, Clock, duration_us, from_us
from workqueue.errors import QueueClosedError, StartLostError, StoreError
from workqueue.handles import HandleStore, Owned, Queued
from workqueue.lease import Lease, LeaseRenewer
from workqueue.metrics import QueueMetrics
from workqueue.optional import Leased, LeaseRequest, RecoveredOrphan
from workqueue.orphan import ORPHAN_ERROR, orphan_wait
from workqueue.rules import started

__all__ = ["Leasing", "began_us"]

log = logging.getLogger(__name__)

_Begun = tuple[bytes, Lease]
_LAST_WORDS_SECONDS = 1.0  # for what goes back when the queue is closed; what Redis does not hear is left to its lease
_GIVE_UP = -1  # in place of an orphan's wait


class _Store(HandleStore, Protocol):
    """Whose keys these are."""

    owner: str


class Leasing:
    """Starts keys for one handle on the queue, and holds their leases.

    Args:
        store: does what the handles of the started keys are asked to do.
        turns: carries the calls.
        renewer: keeps the leases that were won alive.
        metrics: counts starts and recovered orphans.
        clock: when a request was sent; a lease's deadline counts from then.
        waiter: whom a step need not wake any more, since it looks itself; '' = nobody. Asked at each step.
    """

    def __init__(
        self,
        store: _Store,
        turns: Turns,
        renewer: LeaseRenewer,
        metrics: QueueMetrics,
        clock: Clock,
        waiter: Callable[[], str],
    ) -> None:
        self._store = store
        self._turns = turns
        self._renewer = renewer
        self._metrics = metrics
        self._clock = clock
        self._waiter = waiter
        self._lease_us = renewer.times.duration_us
        self._requests = 0
        self._comes_back = False
        self._announced: Announced | None = None
        self._going_back: set[asyncio.Future[Any]] = set()

    def lease(self, request: LeaseRequest) -> Coroutine[Any, Any, Leased]:
        """Recover orphans and start keys (see `LeasingQueue.lease`); a cancelled one hands back what it started.

        One atomic step. It is repeated while there is more than one step may do, so that no step takes long.
        """
        if not self._turns.home.is_here():
            return self._lease(request)  # handed to the loop of the queue, or refused there
        asked = self._ask(request, request.limit)
        step = self._lease(request, asked)

        def unless_begun(answer: asyncio.Future[Reply]) -> None:  # it was cancelled before it began
            if not asked.is_awaited and getcoroutinestate(step) == CORO_CLOSED and is_answered(answer):
                asked.hand_back(answer.result())

        # Not before the next turn: a wake-up may have brought the answer, and a task of it be cancelled in this turn.
        self._turns.home.loop.call_soon(asked.answer.add_done_callback, unless_begun)
        return step

    async def _lease(self, request: LeaseRequest, asked: _Asked | None = None) -> Leased:
        asked = asked or self._ask(request, request.limit)
        asked.is_awaited = True
        begun: list[Owned] = []
        recovered: list[RecoveredOrphan] = []
        try:
            while True:
                step = await self._step(asked)
                recovered += step.recovered
                begun += step.started
                if not step.again:
                    return Leased(self._wanted(begun, request), recovered)
                plan = [ORPHAN_ERROR, *_waits(step.waiting, request)] if step.waiting else ()
                asked = self._ask(request, request.limit - len(begun), plan)
        except StoreError as error:
            if not begun and not recovered:
                self._announced = self._announced or asked.announced  # Redis may act by it still: so ask it again
                raise
            return Leased(begun, recovered, [error])  # what the steps before it started is the caller's
        except asyncio.CancelledError:
            self._hand_back((owned.version, owned.lease) for owned in begun)
            raise

    def _ask(self, request: LeaseRequest, limit: int, plan: Sequence[Argument] = ()) -> _Asked:
        # Where one attempt is all there is, a sleeper that is gone without a word must not use it up.
        self._comes_back = request.comes_back and request.max_retry != 1
        announced = None if plan else self._taken()
        if announced is not None and announced.reply is not None:
            if limit > 0:
                return self._brought(announced)
            self._hand_back_started(announced.prefix, announced.reply)
            announced = None
        prefix, sent_us = announced.prefix if announced else self._token_prefix(), self._clock.steady_us()
        hand_back = partial(self._hand_back_started, prefix)
        answer = self._turns.call(
            "recover" if plan else "lease",
            *(prefix, self._store.owner, max(limit, 0), request.concurrency, self._lease_us),
            *(self._waiter(), *plan),
            unclaimed=hand_back,
            announced=announced.asker if announced else None,
        )
        return _Asked(answer, hand_back, prefix, sent_us, announced)

    def _wanted(self, begun: list[Owned], request: LeaseRequest) -> list[Owned]:
        """`begun`, unless none was asked for: then it was started by a wake-up that did not arrive, and goes back."""
        if request.limit > 0:
            return begun
        self._hand_back((owned.version, owned.lease) for owned in begun)
        return []

    # what is announced before a wait

    def announce(self, concurrency: int) -> Announced | None:
        """The lease request that comes after this wait, for wait.lua to know of; None if none may come.

        Whoever stores a lone key meanwhile starts it by that request, and the wake-up brings the answer along.
        """
        if self._announced is not None or not self._comes_back:
            return None
        prefix = self._token_prefix()
        asker = f"{self._turns.incarnation}:offer", self._requests
        self._announced = Announced(asker, prefix, concurrency, self._clock.steady_us())
        return self._announced

    def bring(self, message: bytes) -> None:
        """A wake-up brought this along; it is of no use if the request that it answers was sent by now."""
        if self._announced is not None:
            self._announced.take(message)

    def withdraw(self) -> bool:
        """Nobody waits any more: see to it that the announced request leaves nothing started; False = there is none."""
        announced = self._taken()
        if announced is None:
            return False
        if announced.reply is not None:
            self._hand_back_started(announced.prefix, announced.reply)
            return True
        answer = self._turns.call(
            "lease",
            *(announced.prefix, self._store.owner, 0, announced.concurrency, self._lease_us, self._waiter()),
            announced=announced.asker,
        )
        self._going_back.add(answer)
        answer.add_done_callback(partial(self._withdrawn, announced.prefix))
        return True

    def _withdrawn(self, prefix: str, answer: asyncio.Future[Reply]) -> None:
        self._going_back.discard(answer)
        if is_answered(answer):
            self._hand_back_started(prefix, answer.result())

    async def end(self) -> None:
        """Before the queue is closed: hand back what was started for nobody, and wait for that, but not for long."""
        with contextlib.suppress(TimeoutError, QueueClosedError):
            self.withdraw()
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                while self._going_back:
                    await asyncio.wait(tuple(self._going_back))

    def _taken(self) -> Announced | None:
        announced, self._announced = self._announced, None
        return announced

    def _brought(self, announced: Announced) -> _Asked:
        """As if the request had been sent, and answered by now."""
        answer = self._turns.home.loop.create_future()
        answer.set_result(announced.reply)
        hand_back = partial(self._hand_back_started, announced.prefix)
        return _Asked(answer, hand_back, announced.prefix, announced.answered_us(self._clock.steady_us()))

    async def _step(self, asked: _Asked) -> _Step:
        prefix, sent_us = asked.prefix, asked.sent_us
        again, now_us, recovered, rows, waiting, aside = await _claimed(asked.answer, asked.hand_back)
        log_set_aside(map(key_text, aside))
        begun = self._hold(rows, prefix, sent_us, now_us)
        if recovered:
            self._metrics.expired(len(recovered) // 6)
        return _Step(bool(again), _recovered(recovered), begun, waiting)

    def _hand_back_started(self, prefix: str, reply: Reply) -> None:
        self._hand_back(_started_in(reply, prefix))

    def _hand_back(self, started_: Iterable[_Begun]) -> None:
        """Release keys whose caller was cancelled and will never settle them; nobody waits for it."""
        for raw, lease in started_:
            self._renewer.drop(lease)
            try:
                settled = self._turns.settle(raw, lease.token, b"l")
                self._going_back.add(settled)
                settled.add_done_callback(ignore)
                settled.add_done_callback(self._going_back.discard)
            except QueueClosedError:
                log.debug("closed while a lease step was cancelled: key %r is left to its lease", lease.key)

    def _hold(self, rows: Sequence[Any], prefix: str, sent_us: int, now_us: int) -> list[Owned]:
        entries, begun, store = [], [], self._store
        for number, (raw, record) in enumerate(_pairs(rows), 1):
            if record is not None:
                key = key_text(raw)
                entry = unpack_entry(key, record)
                entries.append(entry)
                begun.append(Owned(store, started(entry), Lease(key, f"{prefix}{number}"), raw))
        self._renewer.hold_all([owned.lease for owned in begun], sent_us)
        self._metrics.started_all(entries, now_us)
        return begun

    def _token_prefix(self) -> str:
        self._requests += 1
        return f"{self._turns.incarnation}.{self._requests}.{self._clock.wall_us():x}."

    async def start(self, queued: Queued) -> Owned:
        """Start one listed key.

        Raises:
            StartLostError: it is not there any more as it was listed.
        """
        raw, token, sent_us = key_bytes(queued.key), self._token_prefix() + "1", self._clock.steady_us()
        entry, lease = queued.entry, Lease(queued.key, token)

        def hand_back(reply: Reply) -> None:
            self._hand_back([] if reply is None else [(raw, lease)])

        arguments = token, self._store.owner, self._lease_us, raw, entry.queued_us, queued.version or b""
        now_us = await _claimed(self._turns.call("start", *arguments, unclaimed=hand_back), hand_back)
        if now_us is None:
            raise StartLostError()
        self._renewer.hold(lease, sent_us)
        self._metrics.started(entry, now_us)
        return Owned(self._store, started(entry), lease, raw)


class _Asked:
    """A lease step that is asked for: its answer, what hands back the keys in it, their tokens, when it was asked."""

    __slots__ = ("announced", "answer", "hand_back", "is_awaited", "prefix", "sent_us")

    def __init__(
        self,
        answer: asyncio.Future[Reply],
        hand_back: Callable[[Reply], None],
        prefix: str,
        sent_us: int,
        announced: Announced | None = None,
    ) -> None:
        self.announced = announced
        self.answer = answer
        self.hand_back = hand_back
        self.prefix = prefix
        self.sent_us = sent_us
        self.is_awaited = False


class _Step:
    """What one lease step answered."""

    __slots__ = ("again", "recovered", "started", "waiting")

    def __init__(
        self, again: bool, recovered: list[RecoveredOrphan], started_: list[Owned], waiting: Sequence[Any]
    ) -> None:
        self.again = again
        self.recovered = recovered
        self.started = started_
        self.waiting = waiting  # orphans whose wait must be known before anything is done: key, attempts


def began_us(token: str) -> int:
    """When the attempt of this token began, by the wall clock of the process that started it; 0 = it does not say."""
    parts = token.split(".")
    try:
        return min(int(parts[2], 16), LATEST_US) if len(parts) == 4 else 0
    except ValueError:
        return 0


async def _claimed(answer: asyncio.Future[Reply], hand_back: Callable[[Reply], None]) -> Reply:
    """The answer to a call that starts keys; of a cancelled one they are handed back: here, or when it comes."""
    try:
        return await answer  # itself: a shield would cost a turn of the event loop
    except asyncio.CancelledError:
        if is_answered(answer):  # before the cancellation, but nobody had been woken yet
            hand_back(answer.result())
        raise


def _started_in(reply: Reply, prefix: str) -> Iterator[_Begun]:
    """What the lease step of `prefix` started, by its answer."""
    for number, (raw, record) in enumerate(_pairs(reply[3]), 1):
        if record is not None:
            yield raw, Lease(key_text(raw), f"{prefix}{number}")


def _pairs(rows: Sequence[Any]) -> Iterable[tuple[bytes, bytes | None]]:
    """Key and record of what was started; no record = it is not ours any more."""
    return zip(rows[::2], rows[1::2], strict=True)


def _waits(orphans: Sequence[Any], request: LeaseRequest) -> Iterable[Argument]:
    for i in range(0, len(orphans), 2):
        wait = orphan_wait(orphans[i + 1], request.max_retry, request.backoff)
        yield orphans[i]
        yield _GIVE_UP if wait is None else duration_us(wait)


def _recovered(rows: Sequence[Any]) -> list[RecoveredOrphan]:
    return [_recovered_one(*rows[i : i + 6]) for i in range(0, len(rows), 6)]


def _recovered_one(
    raw: bytes, attempts: int, owner: bytes, priority: int, first_us: int, is_dead: int
) -> RecoveredOrphan:
    return RecoveredOrphan(
        key=key_text(raw),
        attempts=attempts,
        owner=owner.decode(errors="replace"),
        priority=priority,
        first_queued_time=from_us(first_us),
        dead_lettered=bool(is_dead),
    )
