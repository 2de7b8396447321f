"""P6: attempts only grow until success, a requeue with a delay, or a re-drive; and how long a requeued key waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from workqueue.conformance.case import Case, expect, expect_of, refused
from workqueue.conformance.scenario import Need, scenario, scenarios
from workqueue.errors import InvalidOptionsError

# attempts so far -> seconds that a bare requeue waits at a priority above zero
BARE_WAITS = {1: 30, 2: 60, 3: 90, 19: 570, 20: 600, 21: 600}

_SECOND = timedelta(seconds=1)

WRONG_REQUEUES: dict[str, dict[str, Any]] = {
    "a delay of zero": {"delay": timedelta(0)},
    "a negative delay": {"delay": -_SECOND},
    "a backoff of zero": {"backoff": timedelta(0)},
    "a negative backoff": {"backoff": -_SECOND},
    "a delay and a backoff": {"delay": _SECOND, "backoff": _SECOND},
    "a floor without a delay": {"floor": True},
    "a floor with a backoff": {"backoff": _SECOND, "floor": True},
    "a delay that is a number": {"delay": 5},
    "a backoff that is a number": {"backoff": 5},
    "an error that is no text": {"backoff": _SECOND, "error": ValueError("no")},
}


@scenario()
async def the_first_start_is_the_first_attempt(case: Case) -> None:
    await case.enqueue("a")
    expect((await case.get("a")).attempts, 0, "the attempts while queued")
    expect((await case.start("a")).attempts, 1, "the attempts once started")
    expect((await case.get("a")).attempts, 1, "the attempts in progress")


@scenario()
async def every_start_after_a_bare_requeue_is_one_attempt_more(case: Case) -> None:
    await case.enqueue("a")
    for attempt in (1, 2, 3, 4):
        owned = await case.start("a")
        expect(owned.attempts, attempt, "the attempts")
        await owned.requeue()
        expect((await case.get("a")).attempts, attempt, "the attempts while queued again")


@scenario(Need.CLOCK)
async def a_bare_requeue_goes_to_the_back_of_the_queue(case: Case) -> None:
    owned = await case.started("a")
    case.advance(1)
    await case.enqueue("b")
    case.advance(1)
    await owned.requeue()
    expect(await case.eligible(), ["b", "a"], "the eligible keys")
    expect((await case.get("a")).queued_time, case.now, "the queued time")


@scenario(Need.CLOCK)
async def a_bare_requeue_at_a_priority_above_zero_waits_longer_each_time(case: Case) -> None:
    await case.enqueue("a", priority=1)
    for attempt in range(1, max(BARE_WAITS) + 1):
        await (await case.start("a")).requeue()
        not_before = (await case.get("a")).not_before
        if attempt in BARE_WAITS:
            expect(not_before, case.later(BARE_WAITS[attempt]), f"not-before after {attempt} attempts")
        case.clock.freeze(timedelta(seconds=600))  # nothing is held, so there is nothing to renew meanwhile


@scenario()
async def a_bare_requeue_at_a_priority_below_zero_does_not_wait(case: Case) -> None:
    await (await case.started("a", priority=-5)).requeue()
    await case.start("a")


@scenario(Need.CLOCK)
async def a_requeue_with_a_delay_starts_the_attempts_over(case: Case) -> None:
    await (await case.started("a")).requeue()
    await (await case.start("a")).requeue(delay=timedelta(seconds=60))
    state = await case.get("a")
    expect_of(state, "the state", attempts=0, not_before=case.later(60))
    case.advance(60)
    expect((await case.start("a")).attempts, 1, "the attempts of the next start")


@scenarios({"below zero": -5, "zero": 0, "above zero": 5}, Need.CLOCK)
async def a_requeue_with_a_backoff_keeps_the_attempts_and_waits(case: Case, priority: int) -> None:
    await (await case.started("a", priority=priority)).requeue(backoff=timedelta(seconds=60))
    state = await case.get("a")
    expect_of(state, "the state", attempts=1, not_before=case.later(60))
    case.advance(60)
    expect((await case.start("a")).attempts, 2, "the attempts of the next start")


@scenarios(WRONG_REQUEUES)
async def a_requeue_that_makes_no_sense_is_refused_and_the_key_kept(case: Case, how: dict[str, Any]) -> None:
    owned = await case.started("a")
    await refused(InvalidOptionsError, owned.requeue(**how))
    expect(await owned.complete(), True, "complete() afterwards")


@scenario(Need.CLOCK)
async def an_event_does_not_refill_the_budget_of_a_failing_key(case: Case) -> None:
    await (await case.started("a")).requeue(backoff=timedelta(seconds=60))
    await case.enqueue("a", priority=3, payload=b"event")
    expect((await case.get("a")).attempts, 1, "the attempts after an event")
    expect((await case.start("a")).attempts, 2, "the attempts of the next start")


@scenario()
async def an_event_during_the_attempt_does_not_refill_the_budget(case: Case) -> None:
    await (await case.started("a")).requeue()
    owned = await case.start("a")
    await case.enqueue("a")
    await owned.requeue()
    expect((await case.get("a")).attempts, 2, "the attempts")


@scenario()
async def an_event_during_the_attempt_outlives_a_requeue_that_starts_over(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("a")
    await owned.requeue(delay=timedelta(hours=1))
    state = await case.get("a")
    expect_of(state, "the state", attempts=0, not_before=None)


@scenario()
async def a_completed_key_starts_over(case: Case) -> None:
    await (await case.started("a")).requeue()
    await (await case.start("a")).complete()
    expect(await case.gone("a"), True, "the key is gone")
    expect((await case.started("a")).attempts, 1, "the attempts of the next start")


@scenario()
async def a_twin_of_a_completed_attempt_starts_over(case: Case) -> None:
    await (await case.started("a")).requeue()
    owned = await case.start("a")
    await case.enqueue("a")
    await owned.complete()
    expect((await case.start("a")).attempts, 1, "the attempts of the twin's start")
