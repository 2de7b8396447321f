"""P7: the four rows of the not-before table, for an enqueue, a requeue and a release, in both directions of time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from workqueue.conformance.case import Case, expect, expect_of
from workqueue.conformance.scenario import Need, scenario, scenarios

# Seconds from now; the existing entry waits for noon, the incoming one comes before or after it.
NOON, EARLIER, LATER = 600, 300, 900


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table, in one direction: whether each side has a floor, and what must come of it."""

    existing_floor: bool
    incoming: int
    incoming_floor: bool
    result: int
    result_floor: bool


TABLE = {
    "no floor meets no floor, earlier": Row(False, EARLIER, False, EARLIER, False),
    "no floor meets no floor, later": Row(False, LATER, False, NOON, False),
    "no floor meets a floor, earlier": Row(False, EARLIER, True, EARLIER, True),
    "no floor meets a floor, later": Row(False, LATER, True, LATER, True),
    "a floor meets no floor, earlier": Row(True, EARLIER, False, NOON, True),
    "a floor meets no floor, later": Row(True, LATER, False, NOON, True),
    "a floor meets a floor, earlier": Row(True, EARLIER, True, NOON, True),
    "a floor meets a floor, later": Row(True, LATER, True, LATER, True),
}

# What a release brings along never waits: its not-before had passed. So only the twin's side varies, and whether the
# attempt had been under a floor before it started must not matter.
RELEASES = {
    "no floor meets no floor": (False, False, None),
    "no floor meets what was a floor": (False, True, None),
    "a floor meets no floor": (True, False, NOON),
    "a floor meets what was a floor": (True, True, NOON),
}


@scenarios(TABLE, Need.CLOCK)
async def an_enqueue_follows_the_floor_table(case: Case, row: Row) -> None:
    noon = case.later(NOON)
    result = case.later(row.result)
    await case.enqueue("a", not_before=noon, not_before_floor=row.existing_floor)
    await case.enqueue("a", not_before=case.later(row.incoming), not_before_floor=row.incoming_floor)
    state = await case.get("a")
    expect_of(state, "the state", not_before=result, floor=row.result_floor)


@scenarios(TABLE, Need.CLOCK)
async def a_requeue_into_a_twin_follows_the_floor_table(case: Case, row: Row) -> None:
    owned = await case.started("a")
    result = case.later(row.result)
    await case.enqueue("a", not_before=case.later(NOON), not_before_floor=row.existing_floor)
    await owned.requeue(delay=timedelta(seconds=row.incoming), floor=row.incoming_floor)
    state = await case.get("a")
    expect_of(state, "the state", not_before=result, floor=row.result_floor)


@scenarios(RELEASES, Need.CLOCK)
async def a_release_into_a_twin_follows_the_floor_table(case: Case, row: tuple[bool, bool, int | None]) -> None:
    twin_floor, was_floor, result = row
    await case.enqueue("a", not_before=case.later(1), not_before_floor=was_floor)
    case.advance(2)
    owned = await case.start("a")
    not_before = case.later(result) if result else None
    await case.enqueue("a", not_before=case.later(NOON), not_before_floor=twin_floor)
    await owned.release()
    state = await case.get("a")
    expect_of(state, "the state", not_before=not_before, floor=twin_floor)


@scenario(Need.CLOCK)
async def an_enqueue_without_not_before_pulls_a_waiting_key_forward(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(600))
    await case.enqueue("a")
    expect(await case.eligible(), ["a"], "the eligible keys")
    expect((await case.get("a")).not_before, None, "not-before")


@scenario(Need.CLOCK)
async def a_floor_holds_against_any_number_of_enqueues(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(60), not_before_floor=True)
    for seconds in (1, 30, 59):
        await case.enqueue("a", priority=seconds)
        await case.enqueue("a", not_before=case.later(1))
    case.advance(59)
    expect(await case.eligible(), [], "the eligible keys before the floor")
    case.advance(1)
    expect(await case.eligible(), ["a"], "the eligible keys at the floor")


@scenario(Need.CLOCK)
async def a_requeue_with_a_floor_holds_against_events(case: Case) -> None:
    owned = await case.started("a")
    await owned.requeue(delay=timedelta(seconds=60), floor=True)
    await case.enqueue("a")
    case.advance(59)
    expect((await case.lease()).started, [], "the keys started before the floor")
    case.advance(1)
    await case.start("a")


@scenario(Need.CLOCK)
async def a_requeue_without_a_floor_gives_way_to_events(case: Case) -> None:
    owned = await case.started("a")
    await owned.requeue(delay=timedelta(seconds=60))
    await case.enqueue("a")
    await case.start("a")


@scenario(Need.CLOCK)
async def an_old_floor_goes_unless_it_is_asked_for_again(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(10), not_before_floor=True)
    case.advance(10)
    await (await case.start("a")).requeue(delay=timedelta(seconds=600))
    expect((await case.get("a")).floor, False, "the floor")
    await case.enqueue("a")
    expect(await case.eligible(), ["a"], "the eligible keys")


@scenario(Need.CLOCK)
async def a_floor_may_be_in_the_past(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(-60), not_before_floor=True)
    expect(await case.eligible(), ["a"], "the eligible keys")
    await case.enqueue("b", not_before=case.later(60))
    await case.enqueue("b", not_before=case.later(-60), not_before_floor=True)
    expect(sorted(await case.eligible()), ["a", "b"], "the eligible keys")
