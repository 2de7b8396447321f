"""P2: one live lease per key; a stale owner's write changes nothing, and the owner learns of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

from workqueue.conformance.case import Case, expect, expect_of
from workqueue.conformance.scenario import Need, scenario, scenarios
from workqueue.interface import KeyStatus, OwnedInProgressKey
from workqueue.optional import Leased, LeaseRequest
from workqueue.options import Options

_HOUR = timedelta(hours=1)

Settle = Callable[[OwnedInProgressKey], Awaitable[bool]]

VERBS: dict[str, Settle] = {
    "complete": lambda owned: owned.complete(),
    "requeue": lambda owned: owned.requeue(),
    "requeue with a delay": lambda owned: owned.requeue(delay=_HOUR),
    "requeue with a backoff": lambda owned: owned.requeue(backoff=_HOUR),
    "dead-letter": lambda owned: owned.dead_letter("stale"),
    "release": lambda owned: owned.release(),
}


async def _stale(case: Case) -> OwnedInProgressKey:
    """An owner whose key was recovered as an orphan, unknown to it; the key is queued."""
    owned = await case.started("a", payload=b"kept")
    owned.abandon()
    case.lapse()
    expect(len((await case.lease(await case.peer(), limit=0)).recovered), 1, "the number of recovered orphans")
    return owned


@scenarios(VERBS, Need.CLOCK)
async def an_owner_whose_key_is_queued_again_changes_nothing(case: Case, settle: Settle) -> None:
    stale = await _stale(case)
    before = await case.everything()
    expect(await settle(stale), False, "the stale owner's settle")
    expect(await case.everything(), before, "everything")
    expect(stale.lost.is_set(), True, "the stale owner's lost")


@scenarios(VERBS, Need.CLOCK)
async def an_owner_whose_key_is_another_owners_changes_nothing(case: Case, settle: Settle) -> None:
    stale = await _stale(case)
    current = await case.start("a", await case.peer("other"))
    await case.enqueue("a", payload=b"twin")
    before = await case.everything()
    expect(await settle(stale), False, "the stale owner's settle")
    expect(await case.everything(), before, "everything")
    expect(current.lost.is_set(), False, "the present owner's lost")
    expect(await current.complete(), True, "the present owner's complete()")


@scenarios(VERBS)
async def an_owner_who_settled_already_changes_nothing(case: Case, settle: Settle) -> None:
    owned = await case.started("a")
    await owned.requeue()
    again = await case.start("a")
    before = await case.everything()
    expect(await settle(owned), False, "the second settle of the first attempt")
    expect(await case.everything(), before, "everything")
    expect(await again.complete(), True, "complete() of the second attempt")


@scenarios(VERBS, Need.CLOCK)
async def an_owner_that_was_frozen_too_long_is_told_and_changes_nothing(case: Case, settle: Settle) -> None:
    owned = await case.started("a")
    case.clock.freeze(case.target.lease + timedelta(seconds=1))
    expect(owned.lost.is_set(), True, "lost, as soon as the owner runs again")
    before = await case.everything()
    expect(await settle(owned), False, "the settle")
    expect(await case.everything(), before, "everything")


_CANCELLED_AFTER = (0, 1, 2, 4, 8, 16, 64)
"""Turns of the event loop. How far a lease step is by then depends on the store: at one of them it is half-way."""

_LOOKS = 1000


@scenario(Need.CLOCK)
async def a_renewal_lasts_as_long_as_a_new_lease(case: Case) -> None:
    await case.started("a")
    case.lapse()  # but for renewals
    longest = timedelta(0)
    for _ in range(int(case.target.lease.total_seconds())):
        case.advance(1)
        expires = (await case.observed("a")).lease_expires
        if expires is None:  # this store does not say
            return
        longest = max(longest, expires - case.now)
    expect(longest > case.target.lease - timedelta(seconds=2), True, f"{longest} after a renewal is a whole lease")


@scenario(Need.CLOCK)
async def a_lease_lasts_as_long_as_it_says_whatever_the_fraction_of_its_second(case: Case) -> None:
    for tenths in (1, 5, 9):
        case.clock.advance(timedelta(seconds=1) - timedelta(microseconds=case.clock.steady_us() % 1_000_000))
        case.clock.advance(timedelta(milliseconds=100 * tenths))
        (await case.started(f"{tenths}")).abandon()
        case.clock.advance(case.target.lease - timedelta(milliseconds=50))
        expect(
            (await case.observed(f"{tenths}")).orphaned, False, f"orphaned before it lapses, started at 0.{tenths} s"
        )
        case.advance(2)
        lapsed = await case.observed(f"{tenths}")
        expect(lapsed.orphaned, True, "orphaned afterwards")
        expect(await lapsed.dead_letter("no more is needed of it"), True, "dead_letter()")


@scenario(Need.CLOCK)
async def a_lease_step_that_is_cancelled_hands_back_what_it_started(case: Case) -> None:
    for turns in _CANCELLED_AFTER:
        await case.queue.queue_many([(f"{turns}-{number}", Options()) for number in range(3)])
        step = asyncio.ensure_future(case.queue.lease(LeaseRequest(limit=3, concurrency=1000)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await _cancelled(step)
    expect(await _attempts_of_all(case, 3 * len(_CANCELLED_AFTER)), {1}, "the attempts of those started afterwards")


@scenario(Need.CLOCK)
async def a_start_that_is_cancelled_hands_its_key_back(case: Case) -> None:
    for turns in _CANCELLED_AFTER:
        await case.enqueue(f"{turns}")
        start = asyncio.ensure_future((await case.listed(f"{turns}")).start())
        for _ in range(turns):
            await asyncio.sleep(0)
        start.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await start).release()  # it was quicker
    expect(await _attempts_of_all(case, len(_CANCELLED_AFTER)), {1}, "the attempts of those started afterwards")


async def _attempts_of_all(case: Case, keys: int) -> set[int]:
    """Start all `keys`; those of a cancelled call come back behind its back, and no event says when."""
    started: list[OwnedInProgressKey] = []
    for _ in range(_LOOKS):
        started += (await case.lease()).started
        if len(started) >= keys:
            return {owned.attempts for owned in started}
        await asyncio.sleep(0.001)
    raise AssertionError(f"{keys - len(started)} of {keys} keys were not handed back")


async def _cancelled(step: asyncio.Future[Leased]) -> None:
    step.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        for owned in (await step).started:  # it was quicker
            await owned.release()


@scenario(Need.CLOCK)
async def the_key_of_a_frozen_owner_is_anothers_within_one_lease_and_one_round(case: Case) -> None:
    owned = await case.started("a", payload=b"kept")
    case.clock.freeze(case.target.lease + timedelta(seconds=1))
    expect(owned.lost.is_set(), True, "lost")
    peer = await case.peer()
    expect([orphan.key for orphan in (await case.lease(peer, limit=0)).recovered], ["a"], "the recovered orphans")
    again = await case.start("a", peer)
    expect_of(again, "the next attempt", attempts=2, payload=b"kept")


@scenario(Need.CLOCK)
async def an_owner_that_was_frozen_briefly_keeps_its_lease(case: Case) -> None:
    owned = await case.started("a")
    for _ in range(5):
        case.clock.freeze(case.target.lease / 2)
    expect((await case.lease(await case.peer())).recovered, [], "the recovered orphans")
    expect(owned.lost.is_set(), False, "lost")
    expect(await owned.complete(), True, "complete()")


@scenario(Need.CLOCK)
async def a_lease_is_renewed_for_as_long_as_the_attempt_takes(case: Case) -> None:
    owned = await case.started("a")
    peer = await case.peer()
    for _ in range(20):
        case.clock.advance(case.target.lease / 2)
        leased = await case.lease(peer)
        expect_of(leased, "the lease step", started=[], recovered=[])
    expect((await case.observed("a")).orphaned, False, "orphaned")
    expect(await owned.complete(), True, "complete()")


@scenario(Need.CLOCK)
async def renewal_ends_with_the_settle(case: Case) -> None:
    await (await case.started("a")).requeue(delay=timedelta(seconds=1))
    case.advance(1)
    (await case.start("a", await case.peer("other"))).abandon()
    case.lapse()
    expect((await case.observed("a")).orphaned, True, "orphaned")


@scenario(Need.CLOCK)
async def an_owner_whose_key_was_taken_is_told_by_its_next_renewal(case: Case) -> None:
    owned = await case.started("a")
    peer = await case.peer()
    expect(await (await case.observed("a", peer)).requeue(), True, "the observer's requeue()")
    current = await case.start("a", peer)
    case.clock.advance(case.target.lease / 2)
    expect(owned.lost.is_set(), True, "the former owner's lost")
    expect(current.lost.is_set(), False, "the present owner's lost")


@scenario(Need.CLOCK)
async def a_lapsed_lease_that_nobody_took_may_still_be_settled(case: Case) -> None:
    owned = await case.started("a")
    owned.abandon()
    case.lapse()
    expect(await owned.complete(), True, "complete()")
    expect(await case.gone("a"), True, "the key is gone")


@scenario(Need.CLOCK)
async def a_wall_clock_that_jumps_does_not_end_a_lease(case: Case) -> None:
    owned = await case.started("a")
    peer = await case.peer()
    for jump in (_HOUR, -3 * _HOUR, 24 * _HOUR):
        case.clock.jump_wall(jump)
        expect((await case.lease(peer)).recovered, [], f"the orphans recovered after a jump of {jump}")
        case.advance(1)
    expect(owned.lost.is_set(), False, "lost")
    expect(await owned.complete(), True, "complete()")


@scenario(Need.CLOCK)
async def a_wall_clock_set_back_does_not_prolong_a_lease(case: Case) -> None:
    (await case.started("a")).abandon()
    case.clock.jump_wall(-24 * _HOUR)
    case.lapse()
    expect([orphan.key for orphan in (await case.lease()).recovered], ["a"], "the recovered orphans")


@scenario(Need.CLOCK)
async def the_leases_of_a_closed_queue_lapse(case: Case) -> None:
    closing = await case.peer()
    await case.enqueue("a")
    await case.start("a", closing)
    await case.close(closing)
    expect((await case.get("a")).status, KeyStatus.IN_PROGRESS, "the status at once")
    case.lapse()
    expect([orphan.key for orphan in (await case.lease()).recovered], ["a"], "the recovered orphans")


@scenario()
async def of_two_racing_settles_one_is_applied(case: Case) -> None:
    for key in "abcdefgh":
        owned = await case.started(key)
        answers = await asyncio.gather(owned.complete(), owned.requeue(), owned.release(), owned.dead_letter("x"))
        expect(sorted(answers), [False, False, False, True], "the answers")
        places = [not await case.gone(key), key in await case.eligible()]
        expect(places, [not answers[0], answers[1] or answers[2]], "whether the key is somewhere, and queued")
        for queued in (await case.queue.enumerate(10)).queued:
            await queued.drop()


@scenario()
async def a_new_attempt_has_a_lease_of_its_own(case: Case) -> None:
    first = await case.started("a")
    await first.requeue()
    second = await case.start("a", await case.peer())
    expect(first.lost.is_set() and second.lost.is_set(), False, "both lost")
    expect([await first.complete(), await second.complete()], [False, True], "the first and the second complete()")
