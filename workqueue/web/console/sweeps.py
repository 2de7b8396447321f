"""One verb over every key of a place that matches a filter: paced, counted, and stopped by a button or at the end.

It runs in the console's process and ends with it. What was done stays done; the rest is as it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial

from workqueue import sweeping
from workqueue.clock import Clock, from_us
from workqueue.equipment import Equipment
from workqueue.errors import InvalidOptionsError, WorkQueueError
from workqueue.fallbacks import FullQueue
from workqueue.paging import MAX_LIMIT, Place
from workqueue.safe_text import describe, visible
from workqueue.searching import Filter
from workqueue.sweeping import AT_ONCE, Act, found_before
from workqueue.web.console.verbs import Verb

__all__ = ["Order", "State", "Sweep", "Sweeps"]

log = logging.getLogger(__name__)

_MOST_RUNNING = 4
_MOST_KEPT = 20
_MOST_REASONS = 20


class State(StrEnum):
    """How far a sweep is."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Order:
    """What a sweep is to do.

    Args:
        verb: what to do to each key.
        place: whose keys.
        wanted: which of them.
        rate: at most this many a second; None = no limit.
        dry_run: only count them.
        who: on whose word.

    Raises:
        InvalidOptionsError: the verb does not suit the place, or the rate is none.
    """

    verb: Verb
    place: Place
    wanted: Filter
    rate: float | None
    dry_run: bool
    who: str

    def __post_init__(self) -> None:
        if self.place not in self.verb.places:
            raise InvalidOptionsError(f"{self.verb.name} does not suit {self.place} keys")
        if self.rate is not None and not 0 < self.rate < 1e6:
            raise InvalidOptionsError("the rate is more than 0 keys a second")


@dataclass(slots=True)
class Sweep:
    """One sweep and what became of it so far. Keys that came after it `began` are left alone."""

    id: str
    order: Order
    began: datetime
    state: State = State.RUNNING
    looked_at: int = 0
    matched: int = 0
    done: int = 0
    failed: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    error: str = ""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def count(self, key: str, reason: str) -> None:
        """Count one key; `reason` says why it was not done."""
        if not reason:
            self.done += 1
            return
        self.failed += 1
        if len(self.reasons) < _MOST_REASONS:
            self.reasons[key] = reason


class Sweeps:
    """The sweeps of one queue: the last 20, of which 4 may run at once.

    Args:
        name: the queue's, for the log.
        queue: where to do it.
        clock: paces them.
    """

    def __init__(self, name: str, queue: FullQueue, clock: Clock) -> None:
        self._name = name
        self._queue = queue
        self._clock = clock
        self._kept: OrderedDict[str, Sweep] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()
        self._number = 0

    def all(self) -> Sequence[Sweep]:
        """Those that are remembered, the newest first."""
        return list(reversed(self._kept.values()))

    def get(self, number: str) -> Sweep | None:
        """The sweep of this id, if it is remembered."""
        return self._kept.get(number)

    def start(self, order: Order) -> Sweep:
        """Begin one.

        Raises:
            InvalidOptionsError: too many run already.
        """
        if sum(each.state is State.RUNNING for each in self._kept.values()) >= _MOST_RUNNING:
            raise InvalidOptionsError(f"{_MOST_RUNNING} sweeps run already: wait for one, or stop it")
        self._number += 1
        began = from_us(Equipment.of(self._queue).clock.wall_us())  # dead letters are stamped by this clock, too
        sweep = self._kept[str(self._number)] = Sweep(str(self._number), order, began)
        finished = [number for number, each in self._kept.items() if each.state is not State.RUNNING]
        for number in finished[: max(len(self._kept) - _MOST_KEPT, 0)]:
            del self._kept[number]
        self._log("began", sweep)
        task = asyncio.create_task(self._run(sweep), name=f"sweep-{sweep.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return sweep

    async def close(self) -> None:
        """Stop those that run, and wait for what they are about to do."""
        for sweep in self._kept.values():
            sweep.stopping.set()
        if self._running:
            await asyncio.wait(set(self._running))

    async def _run(self, sweep: Sweep) -> None:
        try:
            await self._through(sweep)
        except WorkQueueError as error:
            sweep.state, sweep.error = State.FAILED, describe(error)
        except Exception as error:  # nobody awaits it: who looks at its page should see why it ended
            log.exception("a sweep of ours is broken", extra={"queue": self._name})
            sweep.state, sweep.error = State.FAILED, describe(error)
        else:
            sweep.state = State.STOPPED if sweep.stopping.is_set() else State.DONE
        self._log(sweep.state, sweep)

    async def _through(self, sweep: Sweep) -> None:
        acts, rate = self._acts(sweep), sweep.order.rate
        await sweeping.sweep(acts, sweep.count, rate=rate, clock=self._clock, is_stopped=sweep.stopping.is_set)

    async def _acts(self, sweep: Sweep) -> AsyncIterator[tuple[str, Act]]:
        """What is to be done, counted as it is found; of a dry run nothing."""
        order = sweep.order
        limit = MAX_LIMIT if order.dry_run else AT_ONCE
        async for found in found_before(self._queue, order.place, order.wanted, sweep.began, limit=limit):
            sweep.looked_at += found.looked_at
            sweep.matched += len(found.keys)
            for handle in found.keys if not order.dry_run else ():
                yield handle.key, partial(order.verb.act, self._queue, handle)
            if sweep.stopping.is_set():
                return

    def _log(self, what: str, sweep: Sweep) -> None:
        order = sweep.order
        log.info(
            "sweep %s %s: %s%s %s keys%s: %d matched, %d done, %d not, by %s",
            *(sweep.id, what, "dry run: " if order.dry_run else "", order.verb.name, order.place, _said(order.wanted)),
            *(sweep.matched, sweep.done, sweep.failed, order.who),
            extra={"queue": self._name, "who": order.who},
        )


def _said(wanted: Filter) -> str:
    """What a filter asks for, for the log; nothing of what it leaves open."""
    default = asdict(Filter())
    given = [f"{name} {visible(str(value))}" for name, value in asdict(wanted).items() if value != default[name]]
    return f" of {', '.join(given)}" if given else ""
