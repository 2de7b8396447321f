"""A key that is completed without a task that waits for it: all is as `complete` of its handle does it."""

from __future__ import annotations

from workqueue.conformance.case import Case, expect
from workqueue.conformance.scenario import Need, scenario
from workqueue.interface import OwnedInProgressKey


async def _completed(case: Case, *keys: OwnedInProgressKey) -> list[bool | Exception]:
    """Complete `keys` in one go; what was heard of each, in their order."""
    return [await answer for answer in case.complete_soon(*keys)]


@scenario(Need.COMPLETE)
async def a_key_that_is_completed_soon_is_gone(case: Case) -> None:
    owned = await case.started("a")
    expect(await _completed(case, owned), [True], "what was heard")
    expect(await case.gone("a"), True, "gone")
    expect(owned.lost.is_set(), False, "lost")


@scenario(Need.COMPLETE)
async def the_twin_of_a_key_that_is_completed_soon_runs(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("a", payload=b"newer")
    expect(await _completed(case, owned), [True], "what was heard")
    expect((await case.start("a")).payload, b"newer", "the payload of the next attempt")


@scenario(Need.COMPLETE)
async def of_keys_that_are_completed_together_each_has_its_own_answer(case: Case) -> None:
    first, second, third = [await case.started(key) for key in "abc"]
    await second.requeue()
    expect(await _completed(case, first, second, third, first), [True, False, True, False], "what was heard")
    expect(await case.eligible(), ["b"], "the eligible keys")
    expect(second.lost.is_set(), True, "lost of the one that was settled before")


@scenario(Need.COMPLETE, Need.CLOCK)
async def a_stale_owner_who_completes_soon_changes_nothing(case: Case) -> None:
    stale = await case.started("a")
    stale.abandon()
    case.lapse()
    await case.lease(await case.peer(), limit=0)
    before = await case.everything()
    expect(await _completed(case, stale), [False], "what the stale owner heard")
    expect(await case.everything(), before, "everything")
    expect(stale.lost.is_set(), True, "the stale owner's lost")


@scenario(Need.COMPLETE, Need.CLOCK)
async def a_lease_is_not_renewed_once_its_key_was_completed_soon(case: Case) -> None:
    expect(await _completed(case, await case.started("a")), [True], "what was heard")
    again = await case.started("a")
    case.advance(60)
    expect(again.lost.is_set(), False, "lost of the next attempt")
    expect(await again.complete(), True, "complete() of the next attempt")
