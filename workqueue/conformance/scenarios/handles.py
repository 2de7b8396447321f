"""What a handle may do depends on whether the key is still as it was when listed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from workqueue.conformance.case import MANY, Case, expect, expect_of, refused
from workqueue.conformance.scenario import Need, scenario, scenarios
from workqueue.errors import StartLostError
from workqueue.interface import KeyStatus, ObservedInProgressKey, OwnedInProgressKey, QueuedKey

Take = Callable[[ObservedInProgressKey], Awaitable[bool]]

TAKES: dict[str, Take] = {
    "requeue": lambda observed: observed.requeue(),
    "dead-letter": lambda observed: observed.dead_letter("taken"),
}


async def _won(queued: QueuedKey) -> OwnedInProgressKey | None:
    try:
        return await queued.start()
    except StartLostError:
        return None


@scenario(Need.CLOCK)
async def a_listed_key_tells_how_it_is_queued(case: Case) -> None:
    queued_time = case.now
    await case.enqueue("a", priority=7, payload=b"p", meta={"n": "v"})
    queued = await case.listed("a")
    expect_of(queued, "the queued key", key="a", priority=7, attempts=0)
    expect_of(queued, "the queued key", queued_time=queued_time, not_before=None, floor=False)
    expect_of(queued, "the queued key", payload=b"p", meta={"n": "v"})


@scenario(Need.CLOCK)
async def an_owned_key_tells_how_it_was_queued(case: Case) -> None:
    queued_time = case.now
    await case.enqueue("a", priority=7, payload=b"p", meta={"n": "v"})
    case.advance(5)
    owned = await case.start("a")
    expect_of(owned, "the owned key", key="a", priority=7, attempts=1)
    expect_of(owned, "the owned key", queued_time=queued_time, first_queued_time=queued_time)


@scenario(Need.CLOCK)
async def a_key_in_progress_tells_who_has_it(case: Case) -> None:
    await case.enqueue("a", priority=7)
    await case.start("a", await case.peer("team-a"))
    observed = await case.observed("a")
    expect_of(observed, "the observed key", owner="team-a", orphaned=False)
    expect_of(observed, "the observed key", priority=7, attempts=1)
    state = await case.get("a")
    expect_of(state, "the state", status=KeyStatus.IN_PROGRESS, owner="team-a", priority=7)


@scenario()
async def a_listed_key_can_be_started(case: Case) -> None:
    await case.enqueue("a", payload=b"p")
    owned = await (await case.listed("a")).start()
    expect_of(owned, "the owned key", key="a", attempts=1, payload=b"p")
    expect(await owned.complete(), True, "complete()")


@scenario()
async def of_many_who_start_a_listed_key_one_gets_it(case: Case) -> None:
    await case.enqueue("a")
    peers = [await case.peer() for _ in range(4)]
    listings = [(await peer.enumerate(1)).queued[0] for peer in peers for _ in range(3)]
    won = [owned for owned in await asyncio.gather(*map(_won, listings)) if owned is not None]
    expect(len(won), 1, "the number of owners")
    expect(won[0].attempts, 1, "the attempts")
    expect(await won[0].complete(), True, "the owner's complete()")


@scenario()
async def a_key_that_changed_since_it_was_listed_is_not_started(case: Case) -> None:
    await case.enqueue("a")
    queued = await case.listed("a")
    await case.enqueue("a", priority=9)
    await refused(StartLostError, queued.start())
    expect(await case.eligible(), ["a"], "the eligible keys")


@scenario()
async def a_key_that_went_since_it_was_listed_is_not_started(case: Case) -> None:
    await case.enqueue("a")
    queued = await case.listed("a")
    await (await case.start("a")).complete()
    await refused(StartLostError, queued.start())
    expect(await case.gone("a"), True, "the key is gone")


@scenario()
async def a_twin_is_not_started(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("a")
    twin = await case.listed("a")
    await refused(StartLostError, twin.start())
    expect(await owned.complete(), True, "the owner's complete()")
    expect(await case.eligible(), ["a"], "the eligible keys")


@scenarios(TAKES)
async def a_key_can_be_taken_from_an_owner_known_to_be_gone(case: Case, take: Take) -> None:
    owned = await case.started("a")
    expect(await take(await case.observed("a", await case.peer())), True, "the observer's verb")
    before = await case.everything()
    expect(await owned.complete(), False, "the former owner's complete()")
    expect(owned.lost.is_set(), True, "lost")
    expect(await case.everything(), before, "everything")


@scenarios(TAKES, Need.CLOCK)
async def a_key_whose_lease_was_renewed_since_it_was_observed_is_left_alone(case: Case, take: Take) -> None:
    owned = await case.started("a")
    observed = await case.observed("a", await case.peer())
    case.clock.advance(case.target.lease)
    expect(await take(observed), False, "the observer's verb")
    expect(owned.lost.is_set(), False, "lost")
    expect(await owned.complete(), True, "the owner's complete()")


@scenarios(TAKES, Need.CLOCK)
async def an_orphan_observed_before_it_was_settled_is_left_alone(case: Case, take: Take) -> None:
    owned = await case.started("a")
    owned.abandon()
    case.lapse()
    observed = await case.observed("a", await case.peer())
    expect(observed.orphaned, True, "orphaned")
    await owned.complete()
    expect(await take(observed), False, "the observer's verb")
    expect(await case.gone("a"), True, "the key is gone")


@scenarios(TAKES, Need.CLOCK)
async def an_orphan_observed_before_it_was_started_again_is_left_alone(case: Case, take: Take) -> None:
    await case.orphan("a")
    observed = await case.observed("a", await case.peer())
    await case.lease(limit=0)
    owned = await case.start("a")
    expect(await take(observed), False, "the observer's verb")
    expect(await owned.complete(), True, "the present owner's complete()")


@scenarios(TAKES, Need.CLOCK)
async def an_orphan_is_taken_once(case: Case, take: Take) -> None:
    await case.orphan("a")
    observers = [await case.observed("a", await case.peer()) for _ in range(4)]
    answers = await asyncio.gather(*map(take, observers))
    expect(sorted(answers), [False, False, False, True], "the observers' answers")


@scenario()
async def a_listing_has_everything_in_progress_whatever_its_limit(case: Case) -> None:
    for key in "abcde":
        await case.enqueue(key)
    await case.lease()
    expect(sorted(o.key for o in (await case.queue.enumerate(0)).in_progress), list("abcde"), "with limit 0")
    expect(sorted(o.key for o in (await case.queue.enumerate(MANY)).in_progress), list("abcde"), "with a large one")


@scenario()
async def what_one_handle_stored_another_sees(case: Case) -> None:
    peer = await case.peer()
    await peer.queue("a")
    expect(await case.eligible(), ["a"], "the eligible keys")
    owned = await case.start("a", peer)
    expect([o.key for o in (await case.queue.enumerate(0)).in_progress], ["a"], "the keys in progress")
    await owned.dead_letter("boom")
    expect([letter.key for letter in await case.dead_letters()], ["a"], "the dead letters")
