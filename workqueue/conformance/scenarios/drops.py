"""A drop removes what was listed, if it is still as it was, and nothing else."""

from __future__ import annotations

from workqueue.conformance.case import Case, expect
from workqueue.conformance.scenario import Need, scenario


@scenario()
async def a_dropped_key_is_gone(case: Case) -> None:
    await case.enqueue("a")
    await case.enqueue("b")
    expect(await (await case.listed("a")).drop(), True, "drop()")
    expect(await case.gone("a"), True, "whether it is gone")
    expect(await case.eligible(), ["b"], "the eligible keys")


@scenario()
async def a_key_that_changed_since_it_was_listed_is_not_dropped(case: Case) -> None:
    await case.enqueue("a")
    queued = await case.listed("a")
    await case.enqueue("a", payload=b"news")
    expect(await queued.drop(), False, "drop()")
    expect((await case.get("a")).payload, b"news", "the payload")


@scenario()
async def a_key_that_was_started_since_it_was_listed_is_not_dropped(case: Case) -> None:
    await case.enqueue("a")
    queued = await case.listed("a")
    owned = await case.start("a")
    expect(await queued.drop(), False, "drop()")
    expect(await owned.complete(), True, "complete()")


@scenario(Need.CLOCK)
async def a_key_that_was_dropped_and_queued_again_is_not_dropped_by_the_old_listing(case: Case) -> None:
    await case.enqueue("a")
    queued, same = await case.listed("a"), await case.listed("a")
    await queued.drop()
    case.advance(1)
    await case.enqueue("a")
    expect(await same.drop(), False, "drop()")
    expect(await case.eligible(), ["a"], "the eligible keys")


@scenario()
async def a_drop_counts_once(case: Case) -> None:
    await case.enqueue("a")
    first, second = await case.listed("a"), await case.listed("a")
    expect([await first.drop(), await second.drop()], [True, False], "the answers")


@scenario()
async def dropping_a_queued_key_leaves_its_dead_letter(case: Case) -> None:
    await case.failed("a")
    await case.enqueue("a")
    expect(await (await case.listed("a")).drop(), True, "drop()")
    expect([letter.key for letter in await case.dead_letters()], ["a"], "the dead letters")


@scenario()
async def dropping_a_dead_letter_leaves_the_queued_key(case: Case) -> None:
    await case.failed("a")
    await case.enqueue("a")
    expect(await (await case.dead_letter("a")).drop(), True, "drop()")
    expect(await case.eligible(), ["a"], "the eligible keys")
    expect(await case.dead_letters(), [], "the dead letters")


@scenario(Need.CLOCK)
async def a_dead_letter_that_was_replaced_is_not_dropped(case: Case) -> None:
    await case.failed("a", "first")
    old = await case.dead_letter("a")
    case.advance(1)
    await case.failed("a", "second")
    expect(await old.drop(), False, "drop()")
    expect([letter.error for letter in await case.dead_letters()], ["second"], "the errors")


@scenario()
async def a_dead_letter_is_dropped_once(case: Case) -> None:
    await case.failed("a")
    first, second = await case.dead_letter("a"), await case.dead_letter("a")
    expect([await first.drop(), await second.drop()], [True, False], "the answers")
    expect(await case.gone("a"), True, "the key is gone")
