"""A key is not started before its time; only wall time counts for this."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from workqueue.conformance.case import Case, expect, expect_of
from workqueue.conformance.scenario import Need, scenario

_HOUR = timedelta(hours=1)


@scenario(Need.CLOCK)
async def a_key_is_not_started_before_its_time(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(60))
    case.advance(59)
    expect(await case.eligible(), [], "the eligible keys at 59 s")
    expect((await case.lease()).started, [], "the keys started at 59 s")
    case.advance(1)
    expect(await case.eligible(), ["a"], "the eligible keys at 60 s")
    await case.start("a")


@scenario(Need.CLOCK)
async def a_waiting_key_does_not_hold_up_those_behind_it(case: Case) -> None:
    await case.enqueue("first", priority=100, not_before=case.later(60))
    await case.enqueue("second")
    await case.start("second")


@scenario()
async def a_not_before_in_the_past_is_none(case: Case) -> None:
    await case.enqueue("a", not_before=datetime(2001, 1, 1, tzinfo=UTC))
    await case.enqueue("b", not_before=datetime(1, 1, 1, tzinfo=UTC))
    await case.enqueue("c", not_before=datetime(1970, 1, 1, tzinfo=UTC))
    expect(sorted(await case.eligible()), ["a", "b", "c"], "the eligible keys")


@scenario(Need.CLOCK)
async def a_not_before_in_the_far_future_is_kept(case: Case) -> None:
    await case.enqueue("a", not_before=datetime.max.replace(tzinfo=UTC))
    await case.enqueue("b", not_before=datetime(2200, 1, 1, tzinfo=UTC))
    expect(await case.eligible(), [], "the eligible keys")
    expect((await case.get("b")).not_before, datetime(2200, 1, 1, tzinfo=UTC), "not-before")


@scenario(Need.CLOCK)
async def a_not_before_is_an_instant_in_any_time_zone(case: Case) -> None:
    tokyo = timezone(timedelta(hours=9))
    await case.enqueue("a", not_before=case.later(60).astimezone(tokyo))
    expect((await case.get("a")).not_before, case.later(60), "not-before")
    case.advance(60)
    expect(await case.eligible(), ["a"], "the eligible keys")


@scenario(Need.CLOCK)
async def the_not_before_of_a_waiting_key_can_be_seen(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(60), not_before_floor=True)
    state = await case.get("a")
    expect_of(state, "the state", not_before=case.later(60), floor=True)


@scenario(Need.CLOCK)
async def a_start_clears_not_before_and_floor(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(60), not_before_floor=True)
    case.advance(60)
    owned = await case.start("a")
    state = await case.get("a")
    expect_of(state, "the state", not_before=None, floor=False)
    await owned.requeue()
    state = await case.get("a")
    expect_of(state, "the state", not_before=None, floor=False)


@scenario(Need.CLOCK)
async def a_wall_clock_set_forward_makes_keys_eligible(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(1800))
    case.clock.jump_wall(_HOUR)
    await case.start("a")


@scenario(Need.CLOCK)
async def a_wall_clock_set_back_makes_keys_wait_but_loses_none(case: Case) -> None:
    await case.enqueue("now")
    await case.enqueue("soon", not_before=case.later(60))
    case.clock.jump_wall(-timedelta(minutes=5))
    await case.start("now")
    case.advance(300)
    expect(await case.eligible(), [], "the eligible keys five minutes later")
    case.advance(60)
    await case.start("soon")
