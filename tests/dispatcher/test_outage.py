"""A target that is down: starts pause, one key probes, and neither the backlog nor its attempts are used up."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

from dispatcher import Attempt, Dispatcher, DispatcherSettings, TargetUnavailableError
from dispatcher.outage import Outage
from tests.support.dispatching import FragileQueue, Recorder, memory, pass_time, running, scenario, settle_down
from workqueue.backends.memory.backend import MemoryQueue

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
S = 1_000_000
DOWN = TargetUnavailableError("down")
BROKE = TargetUnavailableError("broke", reached=True)


def paused() -> Outage:
    outage = Outage("q")
    for number in range(5):
        outage.unavailable(f"k{number}", DOWN, 0)
    return outage


def test_four_failures_in_a_row_pause_nothing_and_the_fifth_does() -> None:
    outage = Outage("q")
    for number in range(4):
        outage.unavailable(f"k{number}", DOWN, 0)
    before = outage.starts(10, 0)
    outage.unavailable("k4", DOWN, 0)

    assert (before, outage.starts(10, 0)) == (10, 0)


def test_an_answer_in_between_starts_the_count_again() -> None:
    outage = Outage("q")
    for number in range(8):
        outage.unavailable(f"k{number}", DOWN, 0)
        if number == 3:
            outage.reachable("x", 0)

    assert outage.starts(10, 0) == 10


def test_one_key_probes_after_a_second_then_after_two_and_so_on_up_to_a_minute() -> None:
    outage, now_us, pauses = paused(), 0, []
    for _ in range(8):
        wait_us = outage.probe_in_us(now_us)
        assert wait_us is not None
        now_us += wait_us
        pauses.append(wait_us // S)
        assert outage.starts(10, now_us - 1) == 0
        assert outage.starts(10, now_us) == 1
        outage.probe_started()
        assert outage.starts(10, now_us) == 0
        outage.unavailable("probe", DOWN, now_us)

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_probe_that_is_answered_ends_the_pause() -> None:
    outage = paused()
    outage.starts(10, S)
    outage.probe_started()
    outage.reachable("probe", S)

    assert outage.starts(10, S) == 10


def test_a_probe_that_ends_without_an_answer_is_followed_by_another() -> None:
    outage = paused()
    outage.starts(10, S)
    outage.probe_started()
    outage.unanswered()

    assert outage.starts(10, S) == 1


def test_calls_that_were_under_way_when_the_target_went_down_do_not_lengthen_the_pause() -> None:
    outage = paused()
    for number in range(50):
        outage.unavailable(f"late{number}", DOWN, 0)

    assert outage.probe_in_us(0) == S


def test_a_call_that_was_never_made_costs_no_attempt_and_one_that_broke_costs_one_the_second_time() -> None:
    outage = Outage("q")

    assert [outage.unavailable("never", DOWN, 0) for _ in range(3)] == [True, True, True]
    assert [outage.unavailable("poison", BROKE, 0) for _ in range(4)] == [True, False, True, False]


def test_a_call_that_was_never_made_costs_an_attempt_once_the_target_has_answered_another() -> None:
    outage, released = Outage("q"), []
    for _ in range(2):
        released += [outage.unavailable("a", DOWN, 0), outage.unavailable("a", DOWN, 0)]
        outage.reachable("b", 0)
        released.append(outage.unavailable("a", DOWN, 0))

    assert released == [True, True, False] * 2


def test_an_answer_for_the_key_itself_makes_up_for_its_failures() -> None:
    outage = Outage("q")
    outage.unavailable("a", BROKE, 0)
    outage.reachable("a", 0)

    assert outage.unavailable("a", BROKE, 0)


def test_of_very_many_released_keys_the_oldest_is_forgotten() -> None:
    outage = Outage("q")
    for number in range(10_001):
        outage.unavailable(f"k{number}", BROKE, 0)

    assert [outage.unavailable(key, BROKE, 0) for key in ("k0", "k10000")] == [True, False]


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


@scenario
async def test_a_target_that_is_down_for_an_hour_uses_up_no_attempts() -> None:
    queue, errors, target = await backlog(20), Recorder(), Target()
    settings = DispatcherSettings(concurrency=10, max_retry=2)

    async with running(Dispatcher(queue, target, settings, errors=errors)):
        await pass_time(queue, 60 * MINUTE, step=10 * SECOND)
        counts = await queue.counts()

    assert (counts.queued, counts.max_attempts, counts.dead_lettered, errors.told) == (20, 0, 0, [])
    assert target.called.total() < 10 + 6 + 60 + 2


@scenario
async def test_a_key_that_alone_cannot_be_called_fails_instead_of_starting_over_and_over() -> None:
    queue, called = await backlog(20), Counter[str]()

    async def reconcile(key: str, attempt: Attempt) -> None:
        called[key] += 1
        if key == "k0":
            raise DOWN

    async with running(Dispatcher(queue, reconcile, DispatcherSettings(concurrency=2))):
        await pass_time(queue, 29 * SECOND)
        counts = await queue.counts()

    assert (counts.queued, counts.not_before, counts.max_attempts) == (0, 1, 1)
    assert called["k0"] <= 5


@scenario
async def test_a_target_that_is_back_is_noticed_by_the_next_probe_and_the_backlog_flows() -> None:
    queue, target = await backlog(20), Target()

    async with running(Dispatcher(queue, target)):
        await pass_time(queue, 2 * SECOND)
        target.up = True
        await pass_time(queue, 4 * SECOND)
        assert (await queue.counts()).queued == 0


@scenario
async def test_orphans_are_recovered_and_the_loop_lives_while_the_target_is_down() -> None:
    queue, target = await backlog(1), Target()

    async with running(Dispatcher(queue, target)) as dispatcher:
        await pass_time(queue, MINUTE)
        assert dispatcher.health.why_dead() == ""
        assert dispatcher.health.why_unready() == ""


@scenario
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


@scenario
async def test_a_probe_that_takes_its_time_does_not_keep_the_loop_busy() -> None:
    queue = FragileQueue()
    for number in range(5):
        await queue.queue(f"k{number}")

    async with running(Dispatcher(queue, OddProbe(asyncio.Event().wait), FIVE)):
        await pass_time(queue, 2 * SECOND)
        asked = len(queue.steps)
        await settle_down(200)
        assert len(queue.steps) == asked


@scenario
async def test_a_probe_that_is_due_while_no_slot_is_free_does_not_keep_the_loop_busy() -> None:
    queue, over = FragileQueue(), asyncio.Event()
    await queue.queue("a")
    probed = OddProbe(functools.partial(ignoring_cancellation, over))

    async with running(Dispatcher(queue, probed, DispatcherSettings(concurrency=1, max_run_time=MINUTE))):
        await pass_time(queue, 2 * MINUTE)
        asked = len(queue.steps)
        await settle_down(200)
        idle = len(queue.steps) == asked
        over.set()

    assert idle


@scenario
async def test_a_probe_that_is_cancelled_from_within_is_followed_by_another() -> None:
    queue = await backlog(20)

    async with running(Dispatcher(queue, OddProbe(cancel_itself), FIVE)):
        await pass_time(queue, 10 * SECOND)
        assert (await queue.counts()).queued == 0


@scenario
async def test_a_probe_that_never_ends_is_followed_by_another_once_it_is_given_up() -> None:
    queue, over = await backlog(20), asyncio.Event()

    async with running(Dispatcher(queue, OddProbe(functools.partial(ignoring_cancellation, over)), FIVE)):
        await pass_time(queue, 2 * MINUTE)
        left = (await queue.counts()).queued
        over.set()

    assert left == 0
