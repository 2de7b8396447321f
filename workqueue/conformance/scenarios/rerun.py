"""P3: a key queued while in progress runs once more after that attempt, however it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from workqueue.conformance.case import Case, expect
from workqueue.conformance.scenario import Need, scenario, scenarios
from workqueue.interface import KeyStatus, OwnedInProgressKey

_SECOND = timedelta(seconds=1)

Settle = Callable[[OwnedInProgressKey], Awaitable[bool]]

ENDS: dict[str, Settle] = {
    "complete": lambda owned: owned.complete(),
    "requeue": lambda owned: owned.requeue(),
    "requeue with a delay": lambda owned: owned.requeue(delay=_SECOND),
    "requeue with a backoff": lambda owned: owned.requeue(backoff=_SECOND),
    "dead-letter": lambda owned: owned.dead_letter("boom"),
    "release": lambda owned: owned.release(),
}


@scenario()
async def a_key_queued_while_in_progress_is_not_started_twice(case: Case) -> None:
    await case.started("a")
    await case.enqueue("a", priority=9)
    expect(await case.eligible(), [], "the eligible keys")
    expect((await case.lease()).started, [], "the keys started meanwhile")
    expect((await case.lease(await case.peer())).started, [], "the keys another dispatcher started meanwhile")


@scenario()
async def a_key_queued_while_in_progress_is_reported_in_progress(case: Case) -> None:
    await case.started("a")
    await case.enqueue("a")
    expect((await case.get("a")).status, KeyStatus.IN_PROGRESS, "the status")
    expect([twin.key for twin in (await case.queue.enumerate(10)).twins], ["a"], "the twins")


@scenarios(ENDS)
async def a_key_queued_while_in_progress_runs_once_more(case: Case, end: Settle) -> None:
    owned = await case.started("a")
    await case.enqueue("a")
    expect(await end(owned), True, "the settle")
    again = await case.start("a")
    expect(await again.complete(), True, "complete() of the second run")
    expect((await case.lease()).started, [], "the keys started after both")


@scenario(Need.CLOCK)
async def a_key_queued_while_in_progress_runs_once_more_after_a_crash(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("a")
    owned.abandon()
    case.lapse()
    await case.lease(limit=0)
    await (await case.start("a")).complete()
    case.advance(600)
    expect((await case.lease()).started, [], "the keys started after both")


@scenario(Need.CLOCK)
async def many_events_during_an_attempt_are_one_more_run(case: Case) -> None:
    owned = await case.started("a")
    for number in range(10):
        await case.enqueue("a", payload=bytes([number]))
        case.advance(1)
    await owned.complete()
    again = await case.start("a")
    expect(again.payload, bytes([9]), "the payload of the second run")
    await again.complete()
    expect(await case.gone("a"), True, "the key is gone")


@scenario(Need.CLOCK)
async def a_twin_waits_for_its_own_not_before(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("a", not_before=case.later(60))
    await owned.complete()
    expect((await case.lease()).started, [], "the keys started at once")
    case.advance(60)
    await case.start("a")


@scenario()
async def a_dropped_twin_does_not_run(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("a")
    expect(await (await case.listed("a")).drop(), True, "drop()")
    expect(await owned.complete(), True, "complete()")
    expect(await case.gone("a"), True, "the key is gone")


@scenario()
async def a_second_run_may_be_asked_for_during_the_second_run(case: Case) -> None:
    await case.enqueue("a")
    for _ in range(3):
        owned = await case.start("a")
        await case.enqueue("a")
        await owned.complete()
    expect(await case.eligible(), ["a"], "the eligible keys")
