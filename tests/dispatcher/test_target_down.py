"""A target that is down: starts are held, one key probes, and neither the backlog nor its attempts are used up."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

import dispatcher
from dispatcher import Attempt, Dispatcher, DispatcherSettings, TargetUnavailableError, Trigger
from dispatcher.outage import Outage
from dispatcher.round import Round
from dispatcher.setup import Setup
from tests.dispatcher.test_trigger import asked, asking
from tests.support.dispatching import (
    Recorder,
    clock_of,
    flaky,
    memory,
    pass_time,
    running,
    settle_down,
)
from workqueue import InfrastructureError, WorkQueue
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import Trouble

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


class Target:
    """A reconciler that is down or up."""

    def __init__(self) -> None:
        self.up = False
        self.called: Counter[str] = Counter()

    async def __call__(self, key: str, attempt: Attempt) -> None:
        self.called[key] += 1
        if not self.up:
            raise TargetUnavailableError("connection refused")


async def backlog(size: int) -> MemoryQueue:
    queue = memory()
    for number in range(size):
        await queue.queue(f"k{number}")
    return queue


async def test_a_target_that_is_down_for_an_hour_uses_up_no_attempts() -> None:
    queue, errors, target = await backlog(20), Recorder(), Target()
    settings = DispatcherSettings(concurrency=10, max_retry=2)

    async with running(Dispatcher(queue, target, settings, errors=errors)):
        await pass_time(queue, 60 * MINUTE, step=10 * SECOND)
        counts = await queue.counts()

    assert (counts.queued, counts.max_attempts, counts.dead_lettered, errors.told) == (20, 0, 0, [])
    assert target.called.total() < 10 + 6 + 60 + 2


class Refusing:
    """A reconciler that cannot be called for some keys, for ever, and is for all others."""

    def __init__(self, trouble: Trouble, *keys: str) -> None:
        self.trouble = trouble
        self.keys = keys
        self.called: Counter[str] = Counter()

    async def __call__(self, key: str, attempt: Attempt) -> None:
        self.called[key] += 1
        if key in self.keys:
            raise TargetUnavailableError("not for this one", self.trouble)


@pytest.mark.parametrize("trouble", ["unsent", "refused"])
async def test_a_key_that_comes_while_starts_are_held_for_others_is_called_within_seconds(trouble: Trouble) -> None:
    queue = await backlog(6)
    target = Refusing(trouble, *(f"k{number}" for number in range(6)))

    async with running(Dispatcher(queue, target, DispatcherSettings(concurrency=20, max_retry=1))) as dispatching:
        await pass_time(queue, 5 * MINUTE)
        await queue.queue("new")
        await pass_time(queue, 3 * SECOND)

    assert target.called["new"] == 1
    assert dispatching.metrics.outcomes["completed"] == 1


async def test_the_keys_that_hold_the_others_are_given_up_once_those_are_answered() -> None:
    queue = await backlog(6)
    target = Refusing("refused", *(f"k{number}" for number in range(6)))
    settings = DispatcherSettings(concurrency=20, max_retry=3, backoff=lambda attempts: SECOND)

    async with running(Dispatcher(queue, target, settings)):
        for number in range(30):
            await queue.queue(f"new{number}")
            await pass_time(queue, 2 * SECOND)
        counts = await queue.counts()

    assert (counts.dead_lettered, sum(target.called[f"new{number}"] for number in range(30))) == (6, 30)


async def test_a_target_that_refuses_every_key_is_called_with_each_of_a_few_and_then_left_alone() -> None:
    queue, target = await backlog(100), Refusing("refused", *(f"k{number}" for number in range(100)))

    async with running(Dispatcher(queue, target, DispatcherSettings(concurrency=10, max_retry=1))):
        await pass_time(queue, 60 * MINUTE, step=10 * SECOND)
        counts = await queue.counts()

    assert (counts.queued, counts.max_attempts) == (100, 0)
    assert target.called.total() < 10 + 20 + 6 + 60 + 2


async def test_a_key_that_alone_cannot_be_called_fails_instead_of_starting_over_and_over() -> None:
    queue, called = await backlog(20), Counter[str]()

    async def reconcile(key: str, attempt: Attempt) -> None:
        called[key] += 1
        if key == "k0":
            raise TargetUnavailableError("no route")

    async with running(Dispatcher(queue, reconcile, DispatcherSettings(concurrency=2))):
        await pass_time(queue, 29 * SECOND)
        counts = await queue.counts()

    assert (counts.queued, counts.not_before, counts.max_attempts) == (0, 1, 1)
    assert called["k0"] <= 5


async def test_a_target_that_is_back_is_noticed_by_the_next_probe_and_the_backlog_flows() -> None:
    queue, target = await backlog(20), Target()

    async with running(Dispatcher(queue, target)):
        await pass_time(queue, 2 * SECOND)
        target.up = True
        await pass_time(queue, 4 * SECOND)
        assert (await queue.counts()).queued == 0


async def test_orphans_are_recovered_and_the_loop_lives_while_the_target_is_down() -> None:
    queue, target = await backlog(1), Target()

    async with running(Dispatcher(queue, target)) as dispatcher:
        await pass_time(queue, MINUTE)
        assert dispatcher.health.why_dead() == ""
        assert dispatcher.health.why_unready() == ""


async def test_a_drain_does_not_wait_for_a_target_that_is_down() -> None:
    queue, target = await backlog(3), Target()

    async with Dispatcher(queue, target):
        await settle_down()

    assert (await queue.counts()).queued == 3


FIVE = DispatcherSettings(concurrency=5, max_run_time=MINUTE)


class OddProbe:
    """A target that is down for five calls, does something odd to the sixth, the probe, and is up from then on."""

    def __init__(self, odd: Callable[[], Awaitable[object]]) -> None:
        self.odd = odd
        self.calls = 0

    async def __call__(self, key: str, attempt: Attempt) -> None:
        self.calls += 1
        if self.calls <= 5:
            raise TargetUnavailableError("connection refused")
        if self.calls == 6:
            await self.odd()


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def ignoring_cancellation(over: asyncio.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await over.wait()


async def test_a_probe_that_takes_its_time_does_not_keep_the_loop_busy() -> None:
    queue = flaky()
    for number in range(5):
        await queue.queue(f"k{number}")

    async with running(Dispatcher(queue, OddProbe(asyncio.Event().wait), FIVE)):
        await pass_time(queue, 2 * SECOND)
        asked = len(queue.calls)
        await settle_down(200)
        assert len(queue.calls) == asked


async def test_a_probe_that_the_target_has_taken_does_not_hold_the_others_up_until_it_is_done() -> None:
    queue, over = await backlog(20), asyncio.Event()
    settings = DispatcherSettings(concurrency=5, max_run_time=timedelta(hours=1))

    async with running(Dispatcher(queue, OddProbe(over.wait), settings)):
        await pass_time(queue, 14 * SECOND)
        held = (await queue.counts()).queued
        await pass_time(queue, 10 * SECOND)
        left = await queue.counts()
        over.set()

    assert (held, left.queued, left.in_progress) == (19, 0, 1)


async def test_a_probe_that_is_due_while_no_slot_is_free_does_not_keep_the_loop_busy() -> None:
    queue, over = flaky(), asyncio.Event()
    await queue.queue("a")
    probed = OddProbe(functools.partial(ignoring_cancellation, over))

    async with running(Dispatcher(queue, probed, DispatcherSettings(concurrency=1, max_run_time=MINUTE))):
        await pass_time(queue, 2 * MINUTE)
        asked = len(queue.calls)
        await settle_down(200)
        idle = len(queue.calls) == asked
        over.set()

    assert idle


async def test_a_probe_that_is_cancelled_from_within_is_followed_by_another() -> None:
    queue = await backlog(20)

    async with running(Dispatcher(queue, OddProbe(cancel_itself), FIVE)):
        await pass_time(queue, 10 * SECOND)
        assert (await queue.counts()).queued == 0


async def test_a_probe_that_never_ends_is_followed_by_another_once_it_is_given_up() -> None:
    queue, over = await backlog(20), asyncio.Event()

    async with running(Dispatcher(queue, OddProbe(functools.partial(ignoring_cancellation, over)), FIVE)):
        await pass_time(queue, 2 * MINUTE)
        left = (await queue.counts()).queued
        over.set()

    assert left == 0


class Reachable(Target):
    """A target that knows its connection, and says so to whoever waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.outage = Outage(self)
        self.back = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        return self.up

    async def connected(self) -> None:
        await self.back.wait()

    async def is_serving(self) -> bool:
        return self.up


async def test_a_connection_that_is_back_is_noticed_at_once() -> None:
    queue, target = await backlog(20), Reachable()

    async with running(Dispatcher(queue, target)):
        await pass_time(queue, 10 * MINUTE, step=10 * SECOND)
        await pass_time(queue, 2 * SECOND)
        target.up = True
        target.back.set()
        await settle_down()
        assert (await queue.counts()).queued == 0


async def test_an_outage_is_two_lines_in_the_log_with_count_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    queue, target = await backlog(20), Target()

    with caplog.at_level(logging.INFO, "dispatcher"):
        async with running(Dispatcher(queue, target)):
            await pass_time(queue, 30 * SECOND)
            target.up = True
            await pass_time(queue, MINUTE)

    said = [record.getMessage() for record in caplog.records if "target" in record.getMessage()]
    assert said == [
        "the target is down: 5 calls in a row failed; starts are held, one key at a time probes: connection refused",
        "the target is up again after 31 s, in which 14 calls failed; starts resume",
    ]
    assert not [record for record in caplog.records if "released" in record.getMessage()]


Rounds = Callable[[MemoryQueue, Target], Coroutine[Any, Any, None]]


async def by_handle(queue: WorkQueue, target: Target) -> None:
    await dispatcher.handle(queue, callback=target, concurrency=20, max_retry=3)


async def by_handle_async(queue: MemoryQueue, target: Target) -> None:
    await dispatcher.handle_async(queue, callback=target, concurrency=20, max_retry=3)


@pytest.mark.parametrize("a_round", [by_handle, by_handle_async])
async def test_rounds_release_what_they_could_not_reach_and_raise(a_round: Rounds) -> None:
    queue, target = await backlog(40), Target()

    for _ in range(8):
        with pytest.raises(TargetUnavailableError, match="20 keys were handed back unspent: connection refused"):
            await a_round(queue, target)
    counts = await queue.counts()

    assert (counts.queued, counts.max_attempts, counts.dead_lettered) == (40, 0, 0)


async def test_rounds_of_a_target_that_knows_its_outage_call_it_no_more_than_the_loop_would() -> None:
    queue, target = await backlog(40), Reachable()

    for _ in range(8):
        with pytest.raises(TargetUnavailableError):
            await by_handle(queue, target)
        clock_of(queue).advance(SECOND)
    down = target.called.total()
    target.up = True
    await by_handle(queue, target)
    await by_handle(queue, target)

    assert down == 20 + 3  # probes after 1, 2 and 4 s
    assert (await queue.counts()).queued == 0


async def test_a_round_reports_the_store_and_the_target_when_both_fail() -> None:
    queue, target = flaky(), Target()
    await queue.queue("a")
    await queue.queue("b")
    queue.fail("release", key="a", times=1000)

    round_ = asyncio.ensure_future(by_handle(queue, target))
    await pass_time(queue, 20 * SECOND)
    with pytest.raises(ExceptionGroup) as raised:
        await round_

    assert raised.group_contains(TargetUnavailableError)
    assert len(raised.value.exceptions) == 2


async def test_a_trigger_answers_503_with_the_reason_and_stays_ready_without_naming_it() -> None:
    queue, target = await backlog(40), Target()
    app = dispatcher.handler(queue, callback=target, concurrency=20, max_retry=3, trigger_period=timedelta(0))

    async with asking(app) as session:
        down = await asked(session)
        ready = await asked(session, "/readyz", "GET")
        held = await asked(session)
        target.up = True
        clock_of(queue).advance(SECOND)
        up, ready_again = await asked(session), await asked(session, "/readyz", "GET")

    assert down[0] == 503
    assert down[1].endswith("down for 0 s; 20 keys were handed back unspent: connection refused")
    assert ready == (200, "ok; the target has been down for 0 s: starts are held")
    assert (held[0], target.called.total(), up, ready_again) == (503, 20 + 1 + 20, (200, "ok"), (200, "ok"))


async def test_a_trigger_beside_a_loop_adds_no_calls_to_a_target_that_is_down() -> None:
    queue, target = await backlog(40), Target()
    settings = DispatcherSettings(concurrency=20, max_retry=3)

    async with running(Dispatcher(queue, target, settings)) as loop:
        trigger = Trigger(loop.setup, loop.health)
        for _ in range(10):
            await pass_time(queue, SECOND)
            with pytest.raises(TargetUnavailableError):
                await Round(loop.setup).run()
        assert trigger.health.remark() == "the target has been down for 10 s: starts are held"

    assert target.called.total() == 20 + 3
    assert ((await queue.counts()).dead_lettered, (await queue.counts()).max_attempts) == (0, 0)


async def test_the_gauge_says_that_starts_are_held_and_rounds_are_counted_as_such() -> None:
    queue, target = await backlog(5), Target()
    setup = Setup.of(queue, target, DispatcherSettings())

    with pytest.raises(TargetUnavailableError):
        await Round(setup).run()

    assert (setup.metrics.is_target_down(), setup.metrics.rounds["target-down"]) == (True, 1)


class Marked(Target):
    """A reconciler that fails every key for a reason of its own, and says that it did."""

    async def __call__(self, key: str, attempt: Attempt) -> None:
        raise InfrastructureError("the database is down")


async def test_an_answer_that_is_marked_as_the_reconcilers_own_is_a_failed_attempt() -> None:
    queue = await backlog(10)

    await dispatcher.handle(queue, callback=Marked(), concurrency=10, max_retry=1)

    assert (await queue.counts()).dead_lettered == 10
