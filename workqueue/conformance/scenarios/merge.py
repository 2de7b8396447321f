"""Dedup: what becomes of a key that is enqueued, requeued or released while it is queued already."""

from __future__ import annotations

from datetime import timedelta

from workqueue.conformance.case import Case, expect
from workqueue.conformance.scenario import Need, scenario, scenarios

PRIORITIES = {"the queued one": (5, 2), "the incoming one": (2, 5), "either": (4, 4), "below zero": (-3, -8)}
_SOON = timedelta(seconds=1)


@scenario()
async def a_key_enqueued_many_times_is_queued_once(case: Case) -> None:
    for _ in range(5):
        await case.enqueue("a")
    await (await case.peer()).queue("a")
    expect(await case.eligible(), ["a"], "the eligible keys")
    expect(len((await case.lease()).started), 1, "the number of starts")
    expect((await case.lease()).started, [], "the keys started afterwards")


@scenarios(PRIORITIES)
async def an_enqueue_of_a_queued_key_keeps_the_higher_priority(case: Case, row: tuple[int, int]) -> None:
    existing, incoming = row
    await case.enqueue("a", priority=existing)
    await case.enqueue("a", priority=incoming)
    expect((await case.get("a")).priority, max(row), "the priority")


@scenarios(PRIORITIES)
async def a_requeue_into_a_twin_keeps_the_higher_priority(case: Case, row: tuple[int, int]) -> None:
    twin, running = row
    owned = await case.started("a", priority=running)
    await case.enqueue("a", priority=twin)
    expect(await owned.requeue(delay=_SOON), True, "requeue()")
    expect((await case.get("a")).priority, max(row), "the priority")


@scenarios(PRIORITIES)
async def a_release_into_a_twin_keeps_the_higher_priority(case: Case, row: tuple[int, int]) -> None:
    twin, running = row
    owned = await case.started("a", priority=running)
    await case.enqueue("a", priority=twin)
    expect(await owned.release(), True, "release()")
    expect((await case.get("a")).priority, max(row), "the priority")


@scenario(Need.CLOCK)
async def an_enqueue_of_a_queued_key_keeps_its_place(case: Case) -> None:
    await case.enqueue("b")
    queued_time = case.now
    case.advance(1)
    await case.enqueue("a")
    case.advance(1)
    await case.enqueue("b")
    await case.enqueue("b", payload=b"news")
    expect(await case.eligible(), ["b", "a"], "the eligible keys")
    expect((await case.get("b")).queued_time, queued_time, "the queued time")


@scenario(Need.CLOCK)
async def a_requeue_into_a_twin_keeps_the_twins_place(case: Case) -> None:
    owned = await case.started("a")
    case.advance(1)
    await case.enqueue("a")
    queued_time = case.now
    case.advance(1)
    await owned.requeue()
    expect((await case.get("a")).queued_time, queued_time, "the queued time")


@scenario(Need.CLOCK)
async def a_release_into_a_twin_takes_the_earlier_place(case: Case) -> None:
    queued_time = case.now
    owned = await case.started("a")
    case.advance(1)
    await case.enqueue("a")
    await case.enqueue("b")
    await owned.release()
    expect((await case.get("a")).queued_time, queued_time, "the queued time")
    expect(await case.eligible(), ["a", "b"], "the eligible keys")


@scenario(Need.CLOCK)
async def a_key_that_returns_to_the_queue_is_one_key_with_its_twin(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("a")
    await owned.requeue(backoff=timedelta(minutes=2))
    expect(await case.eligible(), ["a"], "the eligible keys")
    await (await case.start("a")).complete()
    case.advance(600)
    expect(await case.gone("a"), True, "the key is gone")


@scenario(Need.CLOCK)
async def the_story_of_a_key_begins_with_its_first_enqueue(case: Case) -> None:
    began = case.now
    await case.enqueue("a")
    case.advance(10)
    await case.enqueue("a", payload=b"news")
    owned = await case.start("a")
    case.advance(10)
    await case.enqueue("a")
    await owned.requeue(delay=_SOON)
    case.advance(10)
    owned = await case.start("a")
    expect(owned.first_queued_time, began, "the first queued time")
    await owned.dead_letter("boom")
    expect((await case.dead_letter("a")).queued_time, began, "the queued time of the dead letter")


@scenario(Need.CLOCK)
async def completing_ends_the_story_of_a_key(case: Case) -> None:
    await (await case.started("a")).complete()
    case.advance(10)
    owned = await case.started("a")
    expect(owned.first_queued_time, case.now, "the first queued time")
