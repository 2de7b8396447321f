"""The gate of rounds on request: when its period begins, and what its drain waits for."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from dispatcher.gate import RoundGate, Turn
from dispatcher.health import Health
from dispatcher.settings import DispatcherSettings
from dispatcher.setup import Setup
from tests.dispatcher.test_loop import Gate
from tests.support.dispatching import SlowQueue, clock_of, memory, nothing, opened, pass_time, settle_down, states
from workqueue.attempt import Callback
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.testing import FakeClock

SECOND = timedelta(seconds=1)


def gate_of(queue: MemoryQueue, callback: Callback = nothing) -> RoundGate:
    setup = Setup.of(queue, callback, DispatcherSettings(trigger_period=SECOND, drain_timeout=20 * SECOND))
    return RoundGate(setup, Health(setup))


async def ended(turn: Turn | None) -> None:
    assert turn is not None
    assert await turn.ended is None


async def test_the_period_begins_with_a_round_and_not_with_its_end() -> None:
    queue, callback = memory(), Gate()
    await queue.queue("a")
    gate = gate_of(queue, callback)

    first = gate.admit()
    await settle_down()
    clock_of(queue).advance(SECOND * 0.9)
    callback.let_go("a")
    await ended(first)
    early = gate.admit()
    clock_of(queue).advance(SECOND * 0.1)

    assert early is None
    await ended(gate.admit())


async def test_calls_that_are_shed_do_not_put_the_next_round_off() -> None:
    queue = memory()
    gate = gate_of(queue)
    await ended(gate.admit())

    shed = []
    for _ in range(9):
        clock_of(queue).advance(SECOND / 10)
        shed.append(gate.admit())
    clock_of(queue).advance(SECOND / 10)

    assert shed == [None] * 9
    await ended(gate.admit())


async def test_a_round_that_waited_for_its_period_begins_one_of_its_own() -> None:
    queue = memory()
    gate = gate_of(queue)
    await ended(gate.admit())
    clock_of(queue).advance(SECOND * 0.5)
    waiting = gate.admit_next()
    await settle_down()
    clock_of(queue).advance(SECOND * 0.5)
    await ended(waiting)

    clock_of(queue).advance(SECOND * 0.9)
    early = gate.admit()
    clock_of(queue).advance(SECOND * 0.1)

    assert early is None
    await ended(gate.admit())


async def test_a_drain_lets_rounds_end_by_themselves_and_waits_for_them() -> None:
    queue, callback = memory(), Gate()
    await queue.queue("a")
    gate = gate_of(queue, callback)
    gate.admit()
    await settle_down()
    draining = asyncio.ensure_future(gate.drain())
    await pass_time(queue, 19 * SECOND)
    early = draining.done()
    callback.let_go("a")
    await draining

    assert (early, callback.inside, await states(queue, "a")) == (False, set(), {"a": "UNKNOWN"})


async def test_a_drain_that_cancels_waits_until_every_key_is_handed_back() -> None:
    queue = opened(SlowQueue(clock=FakeClock()))
    await queue.queue("a")
    gate = gate_of(queue, Gate())
    gate.admit()
    await settle_down()
    draining = asyncio.ensure_future(gate.drain())
    await settle_down()
    clock_of(queue).advance(20 * SECOND)
    await draining

    assert (await queue.get("a")).status.name == "QUEUED"
