"""What an operator may change while dispatchers run: pause, concurrency, starts per second."""

from __future__ import annotations

import asyncio

from workqueue.conformance.case import Case, expect, refused
from workqueue.conformance.scenario import Need, scenario
from workqueue.errors import InvalidOptionsError
from workqueue.throttle import Configuration


@scenario(Need.CONFIGURE)
async def a_new_queue_has_no_settings(case: Case) -> None:
    expect(await case.queue.configuration(), Configuration(), "the configuration")


@scenario(Need.CONFIGURE)
async def settings_are_stored_with_the_queue(case: Case) -> None:
    settings = Configuration(concurrency=7, paused=True, starts_per_second=2.5)
    await case.queue.configure(settings)
    peer = await case.peer()
    expect(await peer.configuration(), settings, "the configuration another dispatcher sees")
    await peer.configure(Configuration())
    expect(await case.queue.configuration(), Configuration(), "the configuration afterwards")


@scenario(Need.CONFIGURE)
async def what_is_no_configuration_is_refused_and_changes_nothing(case: Case) -> None:
    await case.queue.configure(Configuration(concurrency=7))
    for settings in (None, 5, {"paused": True}):
        await refused(InvalidOptionsError, case.queue.configure(settings))  # type: ignore[arg-type]
    expect(await case.queue.configuration(), Configuration(concurrency=7), "the configuration")


@scenario(Need.CONFIGURE)
async def a_paused_queue_starts_nothing_until_it_is_resumed(case: Case) -> None:
    await case.enqueue("a")
    peer = await case.peer()
    await case.queue.configure(Configuration(paused=True))
    expect((await case.lease()).started, [], "the keys started while paused")
    expect((await case.lease(peer)).started, [], "the keys another dispatcher started while paused")
    expect(await case.eligible(), ["a"], "the eligible keys")
    await case.queue.configure(Configuration())
    await case.start("a", peer)


@scenario(Need.CONFIGURE, Need.CLOCK)
async def a_pause_cancels_nothing(case: Case) -> None:
    completing, requeued = await case.started("a"), await case.started("b")
    await case.queue.configure(Configuration(paused=True))
    case.lapse()
    expect(completing.lost.is_set(), False, "lost")
    expect(await completing.complete(), True, "complete()")
    expect(await requeued.requeue(), True, "requeue()")
    await case.enqueue("c")
    expect(await case.eligible(), ["b", "c"], "the eligible keys")


@scenario(Need.CONFIGURE, Need.CLOCK)
async def orphans_are_recovered_while_paused(case: Case) -> None:
    await case.orphan("a")
    await case.queue.configure(Configuration(paused=True))
    expect([orphan.key for orphan in (await case.lease()).recovered], ["a"], "the recovered orphans")


@scenario(Need.CONFIGURE)
async def the_lower_of_the_two_concurrencies_holds(case: Case) -> None:
    for number in range(10):
        await case.enqueue(f"k{number}")
    await case.queue.configure(Configuration(concurrency=3))
    expect(len((await case.lease(concurrency=2)).started), 2, "the starts when the dispatcher's is lower")
    expect(len((await case.lease(concurrency=9)).started), 1, "the starts when the stored one is lower")
    await case.queue.configure(Configuration())
    expect(len((await case.lease(concurrency=9)).started), 6, "the starts once it is lifted")


@scenario(Need.CONFIGURE)
async def a_reduction_cancels_nothing_and_starts_resume_once_there_is_room(case: Case) -> None:
    for number in range(4):
        await case.enqueue(f"k{number}")
    running = (await case.lease(limit=3)).started
    await case.queue.configure(Configuration(concurrency=1))
    expect((await case.lease()).started, [], "the starts after the reduction")
    expect([await owned.complete() for owned in running], [True] * 3, "every complete()")
    expect(len((await case.lease()).started), 1, "the starts once there is room")


@scenario(Need.CONFIGURE, Need.CLOCK)
async def starts_per_second_hold_over_all_dispatchers(case: Case) -> None:
    for number in range(30):
        await case.enqueue(f"k{number:02}")
    await case.queue.configure(Configuration(starts_per_second=4))
    peers = [await case.peer() for _ in range(3)]
    for second in range(4):
        steps = await asyncio.gather(*(case.lease(peer) for peer in peers))
        expect(sum(len(step.started) for step in steps), 4, f"the starts in second {second}")
        case.advance(1)


@scenario(Need.CONFIGURE, Need.CLOCK)
async def starts_not_used_are_saved_up_for_one_second_only(case: Case) -> None:
    for number in range(30):
        await case.enqueue(f"k{number:02}")
    await case.queue.configure(Configuration(starts_per_second=5))
    case.advance(60)
    expect(len((await case.lease()).started), 5, "the starts after a minute")


@scenario(Need.CONFIGURE, Need.CLOCK)
async def less_than_one_start_a_second_is_possible(case: Case) -> None:
    for key in "abc":
        await case.enqueue(key)
    await case.queue.configure(Configuration(starts_per_second=0.1))
    expect(len((await case.lease()).started), 1, "the starts at once")
    case.advance(9)
    expect(len((await case.lease()).started), 0, "the starts after 9 s")
    case.advance(2)
    expect(len((await case.lease()).started), 1, "the starts after 11 s")


@scenario(Need.CONFIGURE, Need.CLOCK)
async def saying_the_same_settings_again_does_not_refill_the_starts(case: Case) -> None:
    for number in range(10):
        await case.enqueue(f"k{number}")
    for expected in (2, 0):
        await case.queue.configure(Configuration(starts_per_second=2))
        expect(len((await case.lease()).started), expected, "the starts")


@scenario(Need.CONFIGURE, Need.CLOCK)
async def a_wall_clock_set_back_does_not_stop_the_starts_for_longer(case: Case) -> None:
    for number in range(6):
        await case.enqueue(f"k{number}")
    await case.queue.configure(Configuration(starts_per_second=2))
    await case.lease()
    case.clock.jump_wall(case.later(-86400) - case.now)
    await case.lease()
    case.advance(2)
    expect(len((await case.lease()).started), 2, "the starts 2 s later")
