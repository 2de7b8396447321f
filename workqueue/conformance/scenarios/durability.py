"""P1: what was acknowledged is there when the queue is opened again."""

from __future__ import annotations

from workqueue.conformance.case import Case, expect, expect_of
from workqueue.conformance.scenario import Need, scenario
from workqueue.interface import KeyStatus
from workqueue.throttle import Configuration


@scenario(Need.DURABLE, Need.CLOCK)
async def queued_keys_are_there_after_a_restart_as_they_were(case: Case) -> None:
    await case.enqueue("a", priority=7, payload=bytes(range(256)), meta={"n": "日本"})
    await case.enqueue("b", not_before=case.later(60))
    await case.enqueue("c", not_before=case.later(60), not_before_floor=True)
    await (await case.started("d", priority=99)).requeue()
    before = (await case.everything(), [await case.get(key) for key in "abcd"])
    await case.reopen()
    expect((await case.everything(), [await case.get(key) for key in "abcd"]), before, "everything")


@scenario(Need.DURABLE, Need.CLOCK)
async def keys_in_progress_are_recovered_after_a_restart(case: Case) -> None:
    await case.started("a", payload=b"p")
    await case.reopen()
    expect((await case.get("a")).status, KeyStatus.IN_PROGRESS, "the status")
    expect((await case.lease()).recovered, [], "the orphans recovered at once")
    case.lapse()
    expect([(o.key, o.attempts) for o in (await case.lease(limit=0)).recovered], [("a", 1)], "the recovered orphans")
    owned = await case.start("a")
    expect_of(owned, "the owned key", attempts=2, payload=b"p")


@scenario(Need.DURABLE, Need.CLOCK)
async def a_restarted_process_does_not_keep_its_predecessors_leases_alive(case: Case) -> None:
    await case.started("a")
    await case.reopen()
    await case.started("b")
    case.lapse()
    expect([orphan.key for orphan in (await case.lease()).recovered], ["a"], "the recovered orphans")


@scenario(Need.DURABLE, Need.CLOCK)
async def an_owner_from_before_the_restart_of_its_queue_is_told(case: Case) -> None:
    await case.started("a")
    await case.reopen()
    case.lapse()
    await case.lease(limit=0)
    owned = await case.start("a")
    expect(await owned.complete(), True, "the new owner's complete()")


@scenario(Need.DURABLE)
async def a_twin_is_there_after_a_restart(case: Case) -> None:
    await case.started("a")
    await case.enqueue("a", payload=b"twin")
    await case.reopen()
    expect([twin.payload for twin in (await case.queue.enumerate(1)).twins], [b"twin"], "the payloads of the twins")
    expect(await case.eligible(), [], "the eligible keys")


@scenario(Need.DURABLE, Need.CLOCK)
async def dead_letters_are_there_after_a_restart(case: Case) -> None:
    await case.failed("a", payload=b"p", priority=3)
    before = await case.everything()
    await case.reopen()
    expect(await case.everything(), before, "everything")
    expect(await (await case.dead_letter("a")).requeue(), True, "re-drive")
    expect((await case.start("a")).payload, b"p", "the payload")


@scenario(Need.DURABLE)
async def a_completed_key_stays_completed_after_a_restart(case: Case) -> None:
    await case.failed("a")
    await (await case.started("a")).complete()
    await case.reopen()
    expect(await case.gone("a"), True, "the key is gone")


@scenario(Need.DURABLE, Need.CONFIGURE)
async def settings_are_there_after_a_restart(case: Case) -> None:
    settings = Configuration(concurrency=7, paused=True, starts_per_second=2.5)
    await case.queue.configure(settings)
    await case.reopen()
    expect(await case.queue.configuration(), settings, "the configuration")
