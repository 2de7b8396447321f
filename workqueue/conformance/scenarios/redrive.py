"""Re-drive: a dead letter goes back to the queue with a new budget, wherever else its key is."""

from __future__ import annotations

from workqueue.conformance.case import Case, expect, expect_of
from workqueue.conformance.scenario import Need, scenario
from workqueue.interface import KeyStatus


@scenario(Need.CLOCK)
async def a_redriven_key_is_queued_as_new(case: Case) -> None:
    await case.failed("a", priority=7, payload=b"p", meta={"n": "v"})
    case.advance(60)
    expect(await (await case.dead_letter("a")).requeue(), True, "requeue()")
    expect(await case.dead_letters(), [], "the dead letters")
    state = await case.get("a")
    expect_of(state, "the state", status=KeyStatus.QUEUED, attempts=0, priority=7)
    expect_of(state, "the state", payload=b"p", meta={"n": "v"})
    expect_of(state, "the state", queued_time=case.now, not_before=None)
    owned = await case.start("a")
    expect_of(owned, "the owned key", attempts=1, first_queued_time=case.now)


@scenario(Need.CLOCK)
async def a_redriven_key_goes_to_the_back(case: Case) -> None:
    await case.failed("a")
    case.advance(1)
    await case.enqueue("b")
    case.advance(1)
    await (await case.dead_letter("a")).requeue()
    expect(await case.eligible(), ["b", "a"], "the eligible keys")


@scenario(Need.CLOCK)
async def a_redrive_of_a_queued_key_merges(case: Case) -> None:
    await case.failed("a", priority=7, payload=b"dead", meta={"old": "1", "both": "1"})
    case.advance(1)
    queued_time = case.now
    await case.enqueue("a", priority=2, payload=b"queued", meta={"both": "2"})
    case.advance(1)
    expect(await (await case.dead_letter("a")).requeue(), True, "requeue()")
    state = await case.get("a")
    expect_of(state, "the state", priority=7, attempts=0, queued_time=queued_time)
    expect_of(state, "the state", payload=b"queued", meta={"old": "1", "both": "2"})
    expect(await case.eligible(), ["a"], "the eligible keys")
    expect(await case.dead_letters(), [], "the dead letters")


@scenario(Need.CLOCK)
async def a_redrive_refills_the_budget_of_a_queued_key(case: Case) -> None:
    await case.failed("a")
    await (await case.started("a")).requeue()
    expect((await case.get("a")).attempts, 1, "the attempts before")
    await (await case.dead_letter("a")).requeue()
    expect((await case.get("a")).attempts, 0, "the attempts afterwards")


@scenario(Need.CLOCK)
async def a_redrive_pulls_a_waiting_key_forward(case: Case) -> None:
    await case.failed("a")
    await case.enqueue("a", not_before=case.later(600))
    await (await case.dead_letter("a")).requeue()
    expect(await case.eligible(), ["a"], "the eligible keys")


@scenario(Need.CLOCK)
async def a_redrive_does_not_undercut_a_floor(case: Case) -> None:
    await case.failed("a")
    await case.enqueue("a", not_before=case.later(600), not_before_floor=True)
    expect(await (await case.dead_letter("a")).requeue(), True, "requeue()")
    state = await case.get("a")
    expect_of(state, "the state", not_before=case.later(600), floor=True)


@scenario()
async def a_redrive_of_a_key_in_progress_makes_a_twin(case: Case) -> None:
    await case.failed("a", payload=b"dead")
    owned = await case.started("a", payload=b"running")
    expect(await (await case.dead_letter("a")).requeue(), True, "requeue()")
    expect(await case.eligible(), [], "the eligible keys")
    expect([twin.payload for twin in (await case.queue.enumerate(1)).twins], [b"dead"], "the payload of the twin")
    expect(await owned.complete(), True, "the owner's complete()")
    await case.start("a")


@scenario()
async def a_redrive_of_a_key_with_a_twin_merges_with_the_twin(case: Case) -> None:
    await case.failed("a", priority=7, payload=b"dead")
    owned = await case.started("a")
    await case.enqueue("a", payload=b"twin")
    expect(await (await case.dead_letter("a")).requeue(), True, "requeue()")
    twins = (await case.queue.enumerate(1)).twins
    expect([(t.payload, t.priority, t.attempts) for t in twins], [(b"twin", 7, 0)], "the twins")
    expect(await owned.complete(), True, "the owner's complete()")
    expect(await case.eligible(), ["a"], "the eligible keys")


@scenario(Need.CLOCK)
async def a_dead_letter_that_was_replaced_is_not_redriven(case: Case) -> None:
    await case.failed("a", "first")
    old = await case.dead_letter("a")
    case.advance(1)
    await case.failed("a", "second")
    expect(await old.requeue(), False, "requeue() of the old one")
    expect([letter.error for letter in await case.dead_letters()], ["second"], "the errors")
    expect(await case.eligible(), [], "the eligible keys")


@scenario()
async def a_dead_letter_is_redriven_once(case: Case) -> None:
    await case.failed("a")
    first, second = await case.dead_letter("a"), await case.dead_letter("a")
    expect([await first.requeue(), await second.requeue()], [True, False], "the answers")
    await (await case.start("a")).complete()
    expect(await first.requeue(), False, "requeue() of a letter long gone")
    expect(await case.gone("a"), True, "the key is gone")


@scenario()
async def a_redriven_key_that_fails_again_is_a_dead_letter_again(case: Case) -> None:
    await case.failed("a", "first")
    await (await case.dead_letter("a")).requeue()
    await (await case.start("a")).dead_letter("second")
    letter = await case.dead_letter("a")
    expect_of(letter, "the dead letter", error="second", attempts=1)
