"""What an operator looks for: the handles of one key, and the keys whose time has not come."""

from __future__ import annotations

from workqueue.conformance.case import Case, expect, expect_of
from workqueue.conformance.scenario import Need, scenario
from workqueue.optional import Found


@scenario()
async def a_key_that_is_nowhere_is_not_found(case: Case) -> None:
    await case.enqueue("other")
    expect(await case.queue.find("a"), Found(), "what was found")


@scenario()
async def a_key_is_found_in_every_place_where_it_is(case: Case) -> None:
    await case.failed("a", "boom")
    await case.started("a", payload=b"running")
    await case.enqueue("a", payload=b"twin")
    await case.enqueue("b")
    found = await case.queue.find("a")
    expect(found.queued and found.queued.payload, b"twin", "the payload of the twin")
    expect(found.in_progress and found.in_progress.attempts, 1, "the attempts in progress")
    expect(found.dead_letter and found.dead_letter.error, "boom", "the error of the dead letter")
    found = await case.queue.find("b")
    expect_of(found, "what was found", in_progress=None, dead_letter=None)


@scenario()
async def a_found_key_can_be_acted_on(case: Case) -> None:
    await case.failed("a")
    await case.started("a")
    await case.enqueue("a")
    found = await case.queue.find("a")
    for handle in (found.queued, found.dead_letter):
        expect(handle is not None and await handle.drop(), True, "drop()")
    expect(found.in_progress is not None and await found.in_progress.requeue(), True, "requeue()")
    expect(await case.eligible(), ["a"], "the eligible keys")
    expect(await case.dead_letters(), [], "the dead letters")


@scenario(Need.SEARCH, Need.CLOCK)
async def a_waiting_key_is_found_and_can_be_dropped(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(60))
    queued = (await case.queue.find("a")).queued
    expect(queued and queued.not_before, case.later(60), "not-before")
    expect(queued is not None and await queued.drop(), True, "drop()")
    expect(await case.gone("a"), True, "the key is gone")


@scenario(Need.SEARCH, Need.CLOCK)
async def waiting_keys_are_listed_soonest_first(case: Case) -> None:
    for key, seconds in (("c", 30), ("a", 90), ("b", 60), ("past", -5)):
        await case.enqueue(key, not_before=case.later(seconds))
    await case.enqueue("now")
    expect([queued.key for queued in await case.queue.delayed(10)], ["c", "b", "a"], "the waiting keys")
    expect([queued.key for queued in await case.queue.delayed(2)], ["c", "b"], "the first two of them")
    case.advance(60)
    expect([queued.key for queued in await case.queue.delayed(10)], ["a"], "the waiting keys a minute later")


@scenario(Need.SEARCH, Need.CLOCK)
async def a_twin_is_not_listed_as_waiting(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("a", not_before=case.later(60))
    expect(list(await case.queue.delayed(10)), [], "the waiting keys")
    await owned.complete()
    expect([queued.key for queued in await case.queue.delayed(10)], ["a"], "the waiting keys once it is settled")
