"""P4: live leases stay within the concurrency, with any number of dispatchers racing."""

from __future__ import annotations

import asyncio

from workqueue.conformance.case import Case, expect, expect_of
from workqueue.conformance.scenario import Need, scenario, scenarios


async def _enqueue(case: Case, keys: int) -> None:
    for number in range(keys):
        await case.enqueue(f"k{number:03}")


@scenario()
async def a_lease_step_starts_no_more_than_its_limit(case: Case) -> None:
    await _enqueue(case, 10)
    expect(len((await case.lease(limit=0)).started), 0, "the starts of limit 0")
    expect(len((await case.lease(limit=3)).started), 3, "the starts of limit 3")
    expect(len((await case.lease(limit=100)).started), 7, "the starts of limit 100")


@scenario()
async def a_lease_step_on_an_empty_queue_starts_nothing(case: Case) -> None:
    leased = await case.lease()
    expect_of(leased, "the lease step", started=[], recovered=[])


@scenario()
async def a_lease_step_stays_within_the_concurrency(case: Case) -> None:
    await _enqueue(case, 10)
    expect(len((await case.lease(concurrency=4)).started), 4, "the first starts")
    expect(len((await case.lease(concurrency=4)).started), 0, "the starts while full")
    expect(len((await case.lease(concurrency=6)).started), 2, "the starts at a higher concurrency")


@scenario()
async def the_leases_of_other_dispatchers_count(case: Case) -> None:
    await _enqueue(case, 10)
    peer = await case.peer()
    expect(len((await case.lease(peer, concurrency=3)).started), 3, "the starts of one dispatcher")
    expect(len((await case.lease(concurrency=5)).started), 2, "the starts of the other")


@scenario()
async def keys_started_from_a_listing_count(case: Case) -> None:
    await _enqueue(case, 3)
    await (await case.listed("k001")).start()
    expect([owned.key for owned in (await case.lease(concurrency=2)).started], ["k000"], "the started keys")


@scenario()
async def a_lower_concurrency_cancels_nothing_and_starts_nothing(case: Case) -> None:
    await _enqueue(case, 6)
    started = (await case.lease(concurrency=4)).started
    expect((await case.lease(concurrency=1)).started, [], "the starts at a lower concurrency")
    for owned in started[:3]:
        expect(await owned.complete(), True, "complete()")
    expect((await case.lease(concurrency=1)).started, [], "the starts while one is left")
    await started[3].complete()
    expect(len((await case.lease(concurrency=1)).started), 1, "the starts once there is room")


@scenarios({"complete": 0, "requeue": 1, "dead-letter": 2, "release": 3})
async def every_settle_frees_a_slot(case: Case, how: int) -> None:
    await _enqueue(case, 3)
    for number in range(3):
        started = (await case.lease(limit=1, concurrency=1)).started
        expect(len(started), 1, f"the number of starts after {number} settles")
        owned = started[0]
        verbs = (owned.complete, owned.requeue, lambda of=owned: of.dead_letter("boom"), owned.release)
        expect(await verbs[how](), True, "the settle")
    expect(len((await case.queue.enumerate(0)).in_progress), 0, "the keys in progress")


@scenario(Need.CLOCK)
async def an_abandoned_key_holds_its_slot_until_its_lease_lapses(case: Case) -> None:
    await _enqueue(case, 2)
    (await case.start("k000")).abandon()
    expect((await case.lease(concurrency=1)).started, [], "the starts before it lapsed")
    case.lapse()
    expect(len((await case.lease(concurrency=1)).started), 1, "the starts afterwards")


@scenarios({"1": 1, "3": 3, "10": 10}, Need.EXACT)
async def racing_dispatchers_never_exceed_the_concurrency(case: Case, concurrency: int) -> None:
    await _enqueue(case, 40)
    peers = [await case.peer() for _ in range(4)]
    steps = await asyncio.gather(*(case.lease(p, limit=4, concurrency=concurrency) for p in peers for _ in range(6)))
    keys = [owned.key for step in steps for owned in step.started]
    expect(len(keys), concurrency, "the number of starts")
    expect(len(set(keys)), concurrency, "the number of different keys")
    expect(len((await case.queue.enumerate(0)).in_progress), concurrency, "the number of keys in progress")


@scenario()
async def racing_dispatchers_exceed_the_concurrency_by_no_more_than_a_batch_each(case: Case) -> None:
    await _enqueue(case, 60)
    peers = [await case.peer() for _ in range(4)]
    steps = await asyncio.gather(*(case.lease(peer, limit=2, concurrency=5) for peer in peers))
    started = sum(len(step.started) for step in steps)
    expect(1 <= started <= 5 + (len(peers) - 1) * 2, True, f"{started} starts are within N + (D - 1) * batch")


@scenario()
async def racing_dispatchers_start_every_key_once(case: Case) -> None:
    await _enqueue(case, 30)
    peers = [await case.peer() for _ in range(4)]
    started: list[str] = []
    for _ in range(30):
        steps = await asyncio.gather(*(case.lease(peer, limit=3) for peer in peers))
        started += [owned.key for step in steps for owned in step.started]
    expect(sorted(started), [f"k{number:03}" for number in range(30)], "the started keys")


@scenario(Need.EXACT)
async def racing_dispatchers_and_settles_keep_the_queue_moving_within_the_limit(case: Case) -> None:
    await _enqueue(case, 30)
    peers = [await case.peer() for _ in range(3)]
    done: list[str] = []
    while len(done) < 30:
        steps = await asyncio.gather(*(case.lease(peer, limit=5, concurrency=5) for peer in peers))
        running = [owned for step in steps for owned in step.started]
        expect(1 <= len(running) <= 5, True, f"{len(running)} live leases are within 5")
        await asyncio.gather(*(owned.complete() for owned in running))
        done += [owned.key for owned in running]
    expect(len(set(done)), 30, "the number of different keys completed")
