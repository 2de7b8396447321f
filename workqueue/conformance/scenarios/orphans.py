"""P5 and P6: an orphan is queued again, or dead-lettered, by the next lease step; its attempts stay spent."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from workqueue.backoff import Backoff
from workqueue.conformance.case import MANY, Case, expect, expect_of
from workqueue.conformance.scenario import Need, scenario, scenarios
from workqueue.interface import KeyStatus
from workqueue.optional import LeaseRequest

HOOKS: dict[str, Backoff] = {
    "none": lambda attempts: None,
    "zero": lambda attempts: timedelta(0),
    "less than zero": lambda attempts: timedelta(seconds=-1),
}


@scenario(Need.CLOCK)
async def an_orphan_is_queued_again_at_once_after_its_first_attempt(case: Case) -> None:
    await case.orphan("a", priority=5, payload=b"p")
    recovered = (await case.lease(limit=0)).recovered
    expect([(o.key, o.attempts, o.dead_lettered) for o in recovered], [("a", 1, False)], "the recovered orphans")
    state = await case.get("a")
    expect_of(state, "the state", status=KeyStatus.QUEUED, attempts=1, priority=5)
    expect_of(state, "the state", payload=b"p", not_before=None)
    expect(await case.eligible(), ["a"], "the eligible keys")


@scenario(Need.CLOCK)
async def an_orphan_is_queued_again_at_the_back(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("b")
    owned.abandon()
    case.lapse()
    await case.lease(limit=0)
    expect(await case.eligible(), ["b", "a"], "the eligible keys")


@scenario(Need.CLOCK)
async def an_orphan_waits_for_a_backoff_after_a_later_attempt(case: Case) -> None:
    await _orphan_of_a_second_attempt(case)
    await case.lease()
    state = await case.get("a")
    expect_of(state, "the state", status=KeyStatus.QUEUED, attempts=2)
    wait = (state.not_before or case.now) - case.now
    expect(timedelta(seconds=59) <= wait < timedelta(seconds=91), True, f"a wait of {wait} is between 60 and 90 s")


@scenario(Need.CLOCK)
async def an_orphans_next_start_is_one_attempt_more(case: Case) -> None:
    await case.enqueue("a")
    for attempt in (1, 2, 3):
        owned = await case.start("a")
        expect(owned.attempts, attempt, "the attempts")
        owned.abandon()
        case.lapse()
        await case.lease(limit=0)
        case.advance(200)


@scenario(Need.CLOCK)
async def the_hook_decides_how_long_an_orphan_waits(case: Case) -> None:
    await case.orphan("a")
    await case.lease(backoff=lambda attempts: timedelta(seconds=7 * attempts))
    expect((await case.get("a")).not_before, case.later(7), "not-before")


@scenarios(HOOKS, Need.CLOCK)
async def a_hook_without_a_positive_answer_means_the_default(case: Case, hook: Backoff) -> None:
    await _orphan_of_a_second_attempt(case)
    await case.lease(backoff=hook)
    case.advance(58)
    expect(await case.eligible(), [], "the eligible keys 58 s later")
    case.advance(33)
    expect(await case.eligible(), ["a"], "the eligible keys 91 s later")


@scenario(Need.CLOCK)
async def a_hook_that_raises_costs_no_orphan(case: Case) -> None:
    def broken(attempts: int) -> timedelta:
        raise ZeroDivisionError

    await case.orphan("a")
    with contextlib.suppress(ZeroDivisionError):  # or it is among the step's errors
        await case.queue.lease(LeaseRequest(MANY, MANY, backoff=broken))
    await case.lease(limit=0)
    expect((await case.get("a")).attempts, 1, "the attempts of the orphan, which is still there")


@scenario(Need.CLOCK)
async def an_orphan_at_max_retry_is_dead_lettered(case: Case) -> None:
    await case.orphan("a", payload=b"p")
    recovered = (await case.lease(max_retry=1)).recovered
    expect([(o.key, o.attempts, o.dead_lettered) for o in recovered], [("a", 1, True)], "the recovered orphans")
    letter = await case.dead_letter("a")
    expect_of(letter, "the dead letter", attempts=1, payload=b"p")
    expect_of(letter, "the dead letter", error=recovered[0].error, failed_time=case.now)
    expect(bool(letter.error), True, "that there is an error text")
    expect(await case.eligible(), [], "the eligible keys")


@scenario(Need.CLOCK)
async def an_orphan_below_max_retry_is_queued_again(case: Case) -> None:
    await case.orphan("a")
    recovered = (await case.lease(limit=0, max_retry=2)).recovered
    expect([o.dead_lettered for o in recovered], [False], "dead-lettered at attempt 1")
    (await case.start("a")).abandon()
    case.lapse()
    recovered = (await case.lease(max_retry=2)).recovered
    expect([o.dead_lettered for o in recovered], [True], "dead-lettered at attempt 2")


@scenario(Need.CLOCK)
async def without_max_retry_no_orphan_is_dead_lettered(case: Case) -> None:
    await case.enqueue("a")
    for _ in range(5):
        (await case.start("a")).abandon()
        case.lapse()
        expect([o.dead_lettered for o in (await case.lease(limit=0)).recovered], [False], "dead-lettered")
        case.advance(900)


@scenario(Need.CLOCK)
async def an_orphan_is_merged_with_its_twin(case: Case) -> None:
    owned = await case.started("a", priority=9, payload=b"old")
    await case.enqueue("a", priority=2, payload=b"new")
    owned.abandon()
    case.lapse()
    await case.lease(limit=0)
    state = await case.get("a")
    expect_of(state, "the state", attempts=1, priority=9, payload=b"new")
    expect(state.not_before, None, "not-before")
    expect(await case.eligible(), ["a"], "the eligible keys")


@scenario(Need.CLOCK)
async def a_recovered_orphan_does_not_undercut_its_twins_floor(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("a", not_before=case.later(900), not_before_floor=True)
    floor = case.later(900)
    owned.abandon()
    case.lapse()
    await case.lease()
    state = await case.get("a")
    expect_of(state, "the state", not_before=floor, floor=True)


@scenario(Need.CLOCK)
async def a_dead_lettered_orphan_leaves_its_twin_a_new_budget(case: Case) -> None:
    await (await case.started("a")).requeue()
    owned = await case.start("a")
    await case.enqueue("a")
    owned.abandon()
    case.lapse()
    expect([o.dead_lettered for o in (await case.lease(limit=0, max_retry=2)).recovered], [True], "dead-lettered")
    expect((await case.dead_letter("a")).attempts, 2, "the attempts of the dead letter")
    expect((await case.start("a")).attempts, 1, "the attempts of the twin's start")


@scenario(Need.CLOCK)
async def a_lease_step_tells_whose_orphans_it_recovered(case: Case) -> None:
    began = case.now
    await case.enqueue("a", priority=4)
    (await case.start("a", await case.peer("lost-pool"))).abandon()
    case.lapse()
    (orphan,) = (await case.lease()).recovered
    expect_of(orphan, "the orphan", owner="lost-pool", priority=4)
    expect(orphan.first_queued_time, began, "the first queued time")


@scenario(Need.CLOCK)
async def an_orphan_that_had_failed_before_keeps_the_time_of_its_first_enqueue(case: Case) -> None:
    began = case.now
    owned = await case.started("a")
    case.advance(300)
    await owned.requeue()
    (await case.start("a")).abandon()
    case.lapse()
    (orphan,) = (await case.lease()).recovered
    expect(orphan.first_queued_time, began, "the first queued time")


@scenario(Need.CLOCK)
async def a_live_lease_is_no_orphan(case: Case) -> None:
    owned = await case.started("alive")
    (await case.started("dead")).abandon()
    case.lapse()
    expect([orphan.key for orphan in (await case.lease()).recovered], ["dead"], "the recovered orphans")
    expect(await owned.complete(), True, "complete() of the live one")


@scenario(Need.CLOCK)
async def an_orphan_is_recovered_by_one_of_many_dispatchers(case: Case) -> None:
    for key in "abcde":
        await case.enqueue(key)
    for owned in (await case.lease()).started:
        owned.abandon()
    case.lapse()
    peers = [await case.peer() for _ in range(4)]
    steps = await asyncio.gather(*(case.lease(peer) for peer in peers for _ in range(2)))
    recovered = sorted(orphan.key for step in steps for orphan in step.recovered)
    expect(recovered, list("abcde"), "the recovered orphans")


@scenario(Need.CLOCK)
async def an_orphan_makes_room_in_the_step_that_recovers_it(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("b")
    owned.abandon()
    case.lapse()
    leased = await case.lease(concurrency=1)
    expect([o.key for o in leased.recovered], ["a"], "the recovered orphans")
    expect([owned.key for owned in leased.started], ["b"], "the started keys")


@scenario(Need.CLOCK)
async def orphans_are_recovered_even_if_nothing_may_be_started(case: Case) -> None:
    await case.orphan("a")
    expect([o.key for o in (await case.lease(limit=0)).recovered], ["a"], "the recovered orphans")


@scenario(Need.CLOCK)
async def an_observed_orphan_can_be_queued_again_by_hand(case: Case) -> None:
    await case.orphan("a")
    expect(await (await case.observed("a")).requeue(backoff=timedelta(seconds=60)), True, "requeue()")
    state = await case.get("a")
    expect_of(state, "the state", attempts=1, not_before=case.later(60))


@scenario(Need.CLOCK)
async def an_observed_orphan_can_be_queued_again_by_hand_at_once_whatever_its_priority(case: Case) -> None:
    await case.orphan("a", priority=5)
    expect(await (await case.observed("a")).requeue(backoff=timedelta(0)), True, "requeue()")
    state = await case.get("a")
    expect_of(state, "the state", attempts=1, not_before=None)


@scenario(Need.CLOCK)
async def an_observed_orphan_can_be_dead_lettered_by_hand(case: Case) -> None:
    await case.orphan("a", payload=b"p")
    expect(await (await case.observed("a")).dead_letter("by hand"), True, "dead_letter()")
    letter = await case.dead_letter("a")
    expect_of(letter, "the dead letter", error="by hand", attempts=1, payload=b"p")


async def _orphan_of_a_second_attempt(case: Case) -> None:
    await (await case.started("a")).requeue()
    (await case.start("a")).abandon()
    case.lapse()
