"""A released key goes back as if it had not been started: attempts - 1, at its old place."""

from __future__ import annotations

from workqueue.conformance.case import Case, expect, expect_of
from workqueue.conformance.scenario import Need, scenario


@scenario(Need.CLOCK)
async def a_released_key_is_back_at_its_old_place(case: Case) -> None:
    queued_time = case.now
    await case.enqueue("b")
    case.advance(1)
    await case.enqueue("c")
    owned = await case.start("b")
    case.advance(1)
    expect(await owned.release(), True, "release()")
    expect(await case.eligible(), ["b", "c"], "the eligible keys")
    expect((await case.get("b")).queued_time, queued_time, "the queued time")


@scenario()
async def a_release_is_no_attempt(case: Case) -> None:
    await case.enqueue("a")
    for _ in range(3):
        owned = await case.start("a")
        expect(owned.attempts, 1, "the attempts")
        await owned.release()
        expect((await case.get("a")).attempts, 0, "the attempts while queued")


@scenario()
async def a_release_keeps_the_attempts_spent_before(case: Case) -> None:
    await (await case.started("a")).requeue()
    await (await case.start("a")).release()
    expect((await case.get("a")).attempts, 1, "the attempts while queued")
    expect((await case.start("a")).attempts, 2, "the attempts of the next start")


@scenario(Need.CLOCK)
async def a_release_does_not_restore_a_not_before_that_had_passed(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(60), not_before_floor=True)
    case.advance(60)
    await (await case.start("a")).release()
    state = await case.get("a")
    expect_of(state, "the state", not_before=None, floor=False)
    case.clock.jump_wall(case.later(-120) - case.now)
    await case.start("a")


@scenario()
async def a_key_of_a_priority_above_zero_does_not_wait_after_a_release(case: Case) -> None:
    await (await case.started("a", priority=100)).release()
    await case.start("a")


@scenario()
async def a_release_into_a_twin_keeps_the_higher_attempts(case: Case) -> None:
    for _ in range(2):
        await case.enqueue("a")
        await (await case.start("a")).requeue()
    owned = await case.start("a")
    await case.enqueue("a")
    await owned.release()
    expect((await case.get("a")).attempts, 2, "the attempts")


@scenario(Need.CLOCK)
async def a_release_keeps_the_story_of_the_key(case: Case) -> None:
    began = case.now
    await case.enqueue("a")
    case.advance(5)
    await (await case.start("a")).release()
    expect((await case.start("a")).first_queued_time, began, "the first queued time")
