"""The continuous dispatcher: full slots, prompt starts, settings from afar, a store that comes and goes, its health."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from dispatcher import Attempt, Dispatcher, DispatcherSettings
from tests.support.dispatching import (
    Ledger,
    Recorder,
    clock_of,
    flaky,
    memory,
    nothing,
    opened,
    pass_time,
    running,
    settle_down,
    states,
)
from workqueue import Configuration, Options, RequeueAfter, StoreUnavailableError
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.clock import from_us
from workqueue.errors import QueueClosedError
from workqueue.optional import Leased, LeaseRequest
from workqueue.testing import FakeClock

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


class BuggyQueue(MemoryQueue):
    """A backend that raises what no backend should."""

    async def lease(self, request: LeaseRequest) -> Leased:
        raise ZeroDivisionError("a bug")


class Gate:
    """A callback that runs until it is let go."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.released: dict[str, asyncio.Event] = {}

    async def __call__(self, key: str, attempt: Attempt) -> None:
        self.inside.add(key)
        event = self.released.setdefault(key, asyncio.Event())
        await event.wait()
        self.inside.discard(key)

    def let_go(self, *keys: str) -> None:
        for key in keys:
            self.released[key].set()


async def test_a_slot_is_filled_again_as_soon_as_its_key_is_settled() -> None:
    queue, gate = memory(), Gate()
    for key in ("a", "b", "c", "d"):
        await queue.queue(key)

    async with running(Dispatcher(queue, gate, DispatcherSettings(concurrency=2))):
        first = set(gate.inside)
        gate.let_go("b")
        await settle_down()
        then = set(gate.inside)

    assert (first, then) == ({"a", "b"}, {"a", "c"})


async def test_an_idle_dispatcher_starts_a_key_as_soon_as_it_is_queued() -> None:
    queue, ledger = memory(), Ledger()

    async with running(Dispatcher(queue, ledger)):
        await queue.queue("a")
        await settle_down()
        assert ledger.ended == {"a": 1}


async def test_a_delayed_key_starts_when_its_time_comes() -> None:
    queue, ledger = memory(), Ledger()
    await queue.queue("a", Options(not_before=from_us(queue.clock.wall_us()) + MINUTE))

    async with running(Dispatcher(queue, ledger)):
        await pass_time(queue, MINUTE - SECOND)
        early = ledger.called.total()
        await pass_time(queue, SECOND)
        assert (early, ledger.called.total()) == (0, 1)


async def test_a_key_queued_while_it_runs_runs_once_more() -> None:
    queue, gate, ledger = memory(), Gate(), Ledger()

    async def reconcile(key: str, attempt: Attempt) -> None:
        ledger.called[key] += 1
        await gate(key, attempt)

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile)):
        await queue.queue("a")
        await queue.queue("a")
        gate.let_go("a")
        await settle_down()
        assert ledger.called == {"a": 2}


async def test_a_pause_stored_with_the_queue_is_honoured_and_ends_at_once() -> None:
    queue, ledger = memory(), Ledger()
    await queue.configure(Configuration(paused=True))
    await queue.queue("a")

    async with running(Dispatcher(queue, ledger)):
        await pass_time(queue, MINUTE)
        paused = ledger.called.total()
        await queue.configure(Configuration())
        await settle_down()
        assert (paused, ledger.called.total()) == (0, 1)


async def test_a_lower_concurrency_stored_with_the_queue_is_picked_up() -> None:
    queue, gate = memory(), Gate()
    await queue.configure(Configuration(concurrency=1))
    await queue.queue("a")
    await queue.queue("b")

    async with running(Dispatcher(queue, gate, DispatcherSettings(concurrency=5))):
        assert gate.inside == {"a"}


async def test_the_orphan_of_a_crashed_dispatcher_is_run_again_within_its_lease_and_a_second() -> None:
    queue, ledger = memory(), Ledger()
    await queue.queue("a")
    for owned in (await opened(queue.peer()).lease(LeaseRequest(1, 1))).started:
        owned.abandon()

    async with running(Dispatcher(queue, ledger, DispatcherSettings(concurrency=1))):
        await pass_time(queue, queue.lease_times.duration + SECOND)
        assert ledger.ended == {"a": 1}


async def test_a_store_that_is_down_is_asked_again_with_growing_pauses_until_it_answers() -> None:
    queue, ledger = flaky(), Ledger()
    await queue.queue("a")
    queue.fail("lease", times=3)

    async with running(Dispatcher(queue, ledger)) as dispatcher:
        down = dispatcher.health.why_unready()
        await pass_time(queue, 6 * SECOND)
        asked = queue.asked("lease")
        await pass_time(queue, SECOND)
        assert (asked, ledger.ended, dispatcher.health.why_unready()) == (3, {"a": 1}, "")

    assert down == "the store does not work (StoreUnavailableError); the log says why"


async def test_steps_of_the_loop_are_counted_as_rounds_so_that_a_store_that_fails_shows() -> None:
    queue = flaky()
    queue.fail("lease", times=3)

    async with running(Dispatcher(queue, nothing)) as dispatcher:
        await pass_time(queue, 6 * SECOND)
        failed = dispatcher.metrics.rounds["failed"]
        await pass_time(queue, MINUTE)
        assert (failed, dispatcher.metrics.rounds["failed"]) == (3, 3)
        assert dispatcher.metrics.rounds["ok"] >= 12


class StartlessQueue(MemoryQueue):
    """A store that lists keys and cannot start them."""

    asked = 0

    async def lease(self, request: LeaseRequest) -> Leased:
        self.asked += 1
        return Leased([], errors=[StoreUnavailableError("start failed")])


async def test_a_store_that_can_start_no_key_is_asked_again_with_growing_pauses() -> None:
    queue = opened(StartlessQueue(clock=FakeClock()))
    await queue.queue("a")

    async with running(Dispatcher(queue, nothing)):
        await pass_time(queue, MINUTE)

    assert queue.asked < 20


async def test_an_outage_of_the_store_is_logged_at_its_begin_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    queue = flaky()
    queue.fail("lease", StoreUnavailableError("lease failed"), times=2)

    async with running(Dispatcher(queue, nothing)):
        await pass_time(queue, MINUTE)

    lines = [record.getMessage() for record in caplog.records if "store" in record.getMessage()]
    failed = [f"the store failed, next try in {seconds} s: lease failed" for seconds in (1, 2)]
    assert lines == [*failed, "the store answers again; starts resume"]


async def test_a_settle_waits_for_a_store_that_is_down() -> None:
    queue, ledger = flaky(), Ledger()
    await queue.queue("a")
    queue.fail("complete", times=4)

    async with running(Dispatcher(queue, ledger)) as dispatcher:
        await pass_time(queue, 5 * SECOND)
        assert dispatcher.metrics.outcomes["completed"] == 1

    assert await states(queue, "a") == {"a": "UNKNOWN"}


async def test_a_queue_that_is_closed_ends_the_loop_with_an_error() -> None:
    queue = memory()
    dispatcher = Dispatcher(queue, nothing)
    loop = asyncio.ensure_future(dispatcher.run())
    await settle_down()

    await queue.__aexit__()

    with pytest.raises(QueueClosedError):
        await loop


async def test_a_loop_that_dies_of_a_bug_says_so_even_if_nobody_waits_for_it(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = Dispatcher(BuggyQueue(), nothing)
    loop = asyncio.ensure_future(dispatcher.run())
    await asyncio.wait((loop,))

    assert dispatcher.health.why_dead() == "the loop has died of ZeroDivisionError; the log says why"
    assert "the dispatcher ends: a bug" in caplog.text
    with pytest.raises(ZeroDivisionError):
        await loop


async def test_a_keyboard_interrupt_in_a_callback_ends_the_loop_with_everything_settled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue, errors, gate = memory(), Recorder(), Gate()

    async def reconcile(key: str, attempt: Attempt) -> None:
        if key == "exit":
            raise KeyboardInterrupt
        await gate(key, attempt)

    await queue.queue("a")
    await queue.queue("exit")
    with pytest.raises(KeyboardInterrupt):
        await Dispatcher(queue, reconcile, DispatcherSettings(drain_timeout=timedelta(0)), errors=errors).run()

    assert await states(queue, "a", "exit") == {"a": "QUEUED", "exit": "QUEUED"}
    assert errors.told == [("exit", "requeued")]
    assert "the callback of key 'exit' raised KeyboardInterrupt: this dispatcher ends" in caplog.text


async def test_a_loop_lives_while_it_moves_even_with_nothing_to_do_or_no_slot_free() -> None:
    queue, gate = memory(), Gate()

    async with running(Dispatcher(queue, gate, DispatcherSettings(concurrency=1))) as dispatcher:
        await pass_time(queue, MINUTE)
        idle = dispatcher.health.why_dead()
        await queue.queue("a")
        await pass_time(queue, MINUTE)
        assert (idle, dispatcher.health.why_dead()) == ("", "")


async def test_a_loop_that_does_not_move_is_dead_after_three_poll_periods() -> None:
    queue = memory()

    async with running(Dispatcher(queue, nothing, DispatcherSettings(poll_period=5 * SECOND))) as dispatcher:
        clock_of(queue).freeze(15 * SECOND)
        still = dispatcher.health.why_dead()
        clock_of(queue).freeze(SECOND)
        assert (still, "not moved for 16 s" in dispatcher.health.why_dead()) == ("", True)


async def test_a_key_that_asks_to_run_again_does() -> None:
    queue, ledger = memory(), Ledger()

    async def reconcile(key: str, attempt: Attempt) -> RequeueAfter | None:
        await ledger(key, attempt)
        return RequeueAfter(MINUTE) if ledger.called[key] < 3 else None

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile)):
        await pass_time(queue, 5 * MINUTE)

    assert ledger.called == {"a": 3}


async def test_a_dump_of_tasks_names_the_keys_that_run() -> None:
    queue, gate = memory(), Gate()
    for key in ("a", "b"):
        await queue.queue(key)

    async with running(Dispatcher(queue, gate)):
        names = {task.get_name() for task in asyncio.all_tasks()}
        gate.let_go("a", "b")

    assert {"a", "b"} <= names


@pytest.mark.parametrize("jump", [timedelta(days=1), -timedelta(days=1)], ids=["forward", "back"])
async def test_a_wall_clock_that_jumps_neither_loses_a_lease_nor_stops_the_loop(jump: timedelta) -> None:
    queue, gate, ledger = memory(), Gate(), Ledger()

    async def reconcile(key: str, attempt: Attempt) -> None:
        await (gate if key == "a" else ledger)(key, attempt)

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile)) as dispatcher:
        clock_of(queue).jump_wall(jump)
        await pass_time(queue, MINUTE)
        await queue.queue("b")
        gate.let_go("a")
        await settle_down()
        assert dispatcher.metrics.outcomes["completed"] == 2
        assert dispatcher.health.why_dead() == ""
