"""Lease steps that overlap, as a busy dispatcher asks for them: the next one before the last one is answered."""

from __future__ import annotations

import asyncio
from typing import cast

from workqueue.conformance.case import Case, expect
from workqueue.conformance.scenario import Need, scenario
from workqueue.optional import Leased, LeaseRequest, LeasingQueue
from workqueue.options import Options


async def _leased(case: Case, *requests: LeaseRequest) -> list[list[str]]:
    """The keys that each of `requests` starts; all of them are asked for at once."""
    queue = cast(LeasingQueue, case.queue)
    steps = [queue.lease(request) for request in requests]
    return [[owned.key for owned in (await step).started] for step in steps]


@scenario(Need.PIPELINE)
async def steps_that_overlap_share_the_keys_in_their_order(case: Case) -> None:
    await case.queue.queue_many([(key, Options()) for key in "abcde"])
    shared = await _leased(case, LeaseRequest(2, 100), LeaseRequest(2, 100), LeaseRequest(2, 100))
    expect(shared, [["a", "b"], ["c", "d"], ["e"]], "the started keys")


@scenario(Need.PIPELINE)
async def steps_that_overlap_start_no_more_than_the_limit(case: Case) -> None:
    await case.queue.queue_many([(key, Options()) for key in "abcde"])
    shared = await _leased(case, LeaseRequest(3, 4), LeaseRequest(3, 4))
    expect(shared, [["a", "b", "c"], ["d"]], "the started keys")


@scenario(Need.PIPELINE, Need.COMPLETE)
async def a_step_finds_the_slots_free_whose_keys_were_completed_before_it_was_asked_for(case: Case) -> None:
    first, second = await case.started("a"), await case.started("b")
    await case.queue.queue_many([(key, Options()) for key in "cde"])
    heard = case.complete_soon(first, second)
    expect(await _leased(case, LeaseRequest(5, 2)), [["c", "d"]], "the started keys")
    expect([await answer for answer in heard], [True, True], "what was heard")


@scenario(Need.PIPELINE, Need.COMPLETE)
async def a_step_finds_the_slot_taken_whose_key_is_completed_after_it_was_asked_for(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("b")
    step = cast(LeasingQueue, case.queue).lease(LeaseRequest(1, 1))
    heard = case.complete_soon(owned)
    expect((await step).started, [], "the started keys")
    expect(await heard[0], True, "what was heard")


@scenario(Need.PIPELINE)
async def a_step_that_is_cancelled_before_it_is_awaited_hands_back_what_it_started(case: Case) -> None:
    await case.queue.queue_many([(key, Options()) for key in "ab"])
    step = asyncio.ensure_future(cast(LeasingQueue, case.queue).lease(LeaseRequest(2, 2)))
    step.cancel()
    await asyncio.wait((step,))
    await _leased(case, LeaseRequest(0, 2))  # answered after the other
    expect(await _leased(case, LeaseRequest(2, 2)), [["a", "b"]], "the started keys")


@scenario(Need.PIPELINE)
async def a_step_that_another_thread_hands_to_the_event_loop_of_the_queue_is_taken_there(case: Case) -> None:
    await case.enqueue("a")
    queue, loop = cast(LeasingQueue, case.queue), asyncio.get_running_loop()

    def elsewhere() -> Leased:
        return asyncio.run_coroutine_threadsafe(queue.lease(LeaseRequest(1, 1)), loop).result()

    expect([owned.key for owned in (await asyncio.to_thread(elsewhere)).started], ["a"], "the started keys")
