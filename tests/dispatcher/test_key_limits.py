"""What holds for single keys: run time, tries and backoff of their routes, and deadlines, past which a key expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

import dispatcher
from dispatcher import Attempt, Dispatcher, DispatcherSettings
from tests.support.dispatching import (
    Recorder,
    clock_of,
    dead_letters,
    memory,
    pass_time,
    running,
    settle_down,
    state,
    states,
)
from workqueue import Options, RequeueAfter
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.clock import from_us
from workqueue.optional import LeaseRequest
from workqueue.routing import Fixed, KeyRouter, Limits, with_limits

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
Route = Callable[[str, Attempt], object]


async def forever(key: str, attempt: Attempt) -> None:
    await asyncio.Event().wait()


async def fail(key: str, attempt: Attempt) -> None:
    raise ValueError("no")


class Routed:
    """A queue on a fake clock, and a router that goes by it."""

    def __init__(self) -> None:
        self.queue: MemoryQueue = memory()
        self.clock = clock_of(self.queue)
        self.router = KeyRouter(clock=self.clock)
        self.events = Recorder()

    async def put(self, key: str, limits: Limits | None = None) -> None:
        await self.queue.queue(key, with_limits(Options(), limits) if limits else Options())

    def until(self, duration: timedelta) -> Limits:
        return Limits(deadline=from_us(self.clock.wall_us()) + duration)

    async def round(self, max_retry: int = 0) -> None:
        await dispatcher.handle(self.queue, callback=self.router, errors=self.events, max_retry=max_retry)

    def running(self) -> Dispatcher:
        settings = DispatcherSettings(max_run_time=HOUR)
        return Dispatcher(self.queue, self.router, settings, errors=self.events)

    @property
    def told(self) -> list[tuple[str, str]]:
        return self.events.told


async def test_a_route_has_a_run_time_of_its_own_and_the_others_that_of_the_dispatcher() -> None:
    it = Routed()
    it.router.route("quick", max_run_time=5 * SECOND)(forever)
    it.router.route("slow")(forever)
    await it.put("quick/1")
    await it.put("slow/1")

    async with running(it.running()):
        await pass_time(it.queue, 4 * SECOND)
        before = it.told[:]
        await pass_time(it.queue, 2 * SECOND)

        assert (before, it.told) == ([], [("quick/1", "requeued")])
        assert "max_run_time (0:00:05)" in it.events.events[0].failure.error
        assert await states(it.queue, "slow/1") == {"slow/1": "IN_PROGRESS"}


async def test_a_route_may_have_a_longer_run_time_than_the_dispatcher() -> None:
    it = Routed()
    it.router.route("slow", max_run_time=2 * HOUR)(forever)
    await it.put("slow/1")

    async with running(it.running()):
        await pass_time(it.queue, HOUR + MINUTE, step=10 * SECOND)

        assert it.told == []


async def test_a_route_and_a_key_have_tries_of_their_own() -> None:
    it = Routed()
    it.router.route("once", max_retry=1)(fail)
    it.router.route("often", max_retry=100)(fail)
    it.router.route("other")(fail)
    for key in ("once/1", "often/1", "other/1"):
        await it.put(key)
    await it.put("often/2", Limits(max_retry=1))
    await it.put("once/2", Limits(max_retry=0))

    await it.round(max_retry=1)

    assert await dead_letters(it.queue) == dict.fromkeys(["once/1", "other/1", "often/2"], "ValueError: no")


async def test_a_failed_key_waits_as_the_policy_of_its_route_says() -> None:
    it = Routed()
    it.router.route("a", retry=Fixed((7 * SECOND,)))(fail)
    it.router.route("b")(fail)
    await it.put("a")
    await it.put("b")

    await it.round()

    waits = {}
    for key in ("a", "b"):
        seen = await state(it.queue, key)
        assert seen.not_before is not None
        waits[key] = seen.not_before - from_us(it.clock.wall_us())
    assert waits["a"] == 7 * SECOND
    assert 30 * SECOND <= waits["b"] < 45 * SECOND


async def test_a_key_past_its_deadline_is_not_called_but_ends_as_expired() -> None:
    it = Routed()
    called: list[str] = []
    it.router.route("")(noting(called))
    await it.put("a", it.until(MINUTE))
    it.clock.advance(MINUTE)

    await it.round()

    assert called == []
    assert it.told == [("a", "expired")]
    [(key, error)] = (await dead_letters(it.queue)).items()
    assert (key, error.startswith("ExpiredError: the deadline of this key")) == ("a", True)


def noting(called: list[str]) -> Callable[[str, Attempt], None]:
    return lambda key, attempt: called.append(key)


async def test_an_expired_attempt_is_counted_as_that_and_as_the_end_of_a_story() -> None:
    it = Routed()
    it.router.route("")(forever)
    await it.put("a", it.until(MINUTE))
    it.clock.advance(MINUTE)

    async with running(it.running()) as running_dispatcher:
        await settle_down()
        metrics = running_dispatcher.metrics

    assert (metrics.outcomes["expired"], metrics.outcomes["dead-lettered"]) == (1, 0)
    assert sum(sum(work.dead_lettered.counts) for work in metrics.work.values()) == 1


async def test_a_callback_is_cancelled_at_the_deadline_of_its_key_which_ends_as_expired() -> None:
    it = Routed()
    it.router.route("")(forever)
    await it.put("a", it.until(MINUTE))

    async with running(it.running()):
        await pass_time(it.queue, MINUTE - SECOND)
        before = it.told[:]
        await pass_time(it.queue, 2 * SECOND)

    assert (before, it.told) == ([], [("a", "expired")])
    assert await dead_letters(it.queue) == {"a": "ExpiredError: the callback ran until the deadline of its key"}


async def test_a_callback_cannot_extend_its_run_time_beyond_the_deadline() -> None:
    it = Routed()
    remaining: list[timedelta] = []

    @it.router.route("")
    async def greedy(key: str, attempt: Attempt) -> None:
        attempt.extend(24 * HOUR)
        remaining.append(attempt.remaining())

    await it.put("a", it.until(MINUTE))
    await it.put("b")
    await it.round()

    assert sorted(remaining) == [MINUTE, 24 * HOUR]


async def test_a_key_that_fails_past_its_deadline_ends_as_expired_and_says_why_it_failed() -> None:
    it = Routed()

    @it.router.route("")
    async def late(key: str, attempt: Attempt) -> None:
        it.clock.advance(MINUTE)
        raise ValueError("no")

    await it.put("a", it.until(MINUTE))
    await it.round(max_retry=1)

    assert it.told == [("a", "expired")]
    assert (await dead_letters(it.queue))["a"].endswith("the last attempt failed: ValueError: no")


@pytest.mark.parametrize("outcome", [None, RequeueAfter(MINUTE)], ids=repr)
async def test_what_was_done_or_asked_for_past_the_deadline_stands(outcome: RequeueAfter | None) -> None:
    it = Routed()

    @it.router.route("")
    async def late(key: str, attempt: Attempt) -> RequeueAfter | None:
        it.clock.advance(MINUTE)
        return outcome

    await it.put("a", it.until(MINUTE))
    await it.round()

    assert it.told == []
    assert await states(it.queue, "a") == {"a": "QUEUED" if outcome else "UNKNOWN"}


async def test_a_newer_deadline_saves_a_key_from_expiring() -> None:
    it = Routed()
    called: list[str] = []
    it.router.route("")(noting(called))
    await it.put("a", it.until(MINUTE))
    it.clock.advance(MINUTE)
    await it.put("a", it.until(MINUTE))

    await it.round()

    assert called == ["a"]


async def test_a_key_whose_last_attempt_was_cut_off_by_a_crash_is_given_up_without_another() -> None:
    it = Routed()
    called: list[str] = []
    it.router.route("deadly", max_retry=1)(noting(called))
    await it.put("deadly/1")
    [owned] = (await it.queue.lease(LeaseRequest(1, 1))).started
    owned.abandon()
    it.clock.freeze(MINUTE)

    await it.round()

    assert called == []
    assert (await dead_letters(it.queue))["deadly/1"] == (
        "NonRetriableError: the process that ran the last of 1 attempts died"
    )
    assert it.told == [("deadly/1", "dead-lettered")]
