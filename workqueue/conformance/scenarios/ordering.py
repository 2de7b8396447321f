"""P8: eligible keys start by priority descending, then queued time, then name."""

from __future__ import annotations

from workqueue.conformance.case import Case, expect
from workqueue.conformance.scenario import Need, scenario
from workqueue.errors import InvalidOptionsError
from workqueue.options import MAX_PRIORITY

# What a bucket shared with Go can hold: eight characters, the sign included.
NARROW = (-9_999_999, 99_999_999)


@scenario()
async def a_higher_priority_starts_first(case: Case) -> None:
    for key, priority in (("low", -7), ("high", 120), ("normal", 0), ("higher", 121), ("lowest", -70)):
        await case.enqueue(key, priority=priority)
    order = ["higher", "high", "normal", "low", "lowest"]
    expect(await case.eligible(), order, "the listed keys")
    expect([owned.key for owned in (await case.lease()).started], order, "the started keys")


@scenario(Need.CLOCK)
async def of_one_priority_the_longest_queued_starts_first(case: Case) -> None:
    for key in ("c", "a", "b"):
        await case.enqueue(key, priority=3)
        case.advance(1)
    expect(await case.eligible(), ["c", "a", "b"], "the listed keys")
    expect([owned.key for owned in (await case.lease()).started], ["c", "a", "b"], "the started keys")


@scenario(Need.CLOCK)
async def keys_queued_at_the_same_time_start_by_name(case: Case) -> None:
    names = ["\U0001f600", "b", "\uffee", "a/b", "é", "a", "a b", "B"]
    for name in names:
        await case.enqueue(name)
    expect(await case.eligible(), sorted(names), "the listed keys")


@scenario()
async def the_ends_of_the_priority_range_are_told_apart(case: Case) -> None:
    lowest, highest = -MAX_PRIORITY, MAX_PRIORITY
    try:
        await case.enqueue("highest", priority=highest)
    except InvalidOptionsError:  # a store shared with Go holds less, and must say so rather than clip
        lowest, highest = NARROW
        await case.enqueue("highest", priority=highest)
    for key, priority in (("high", highest - 1), ("low", lowest + 1), ("lowest", lowest), ("zero", 0)):
        await case.enqueue(key, priority=priority)
    expect(await case.eligible(), ["highest", "high", "zero", "low", "lowest"], "the listed keys")
    expect((await case.get("highest")).priority, highest, "the highest priority")
    expect((await case.get("lowest")).priority, lowest, "the lowest priority")


@scenario()
async def a_listing_has_no_more_eligible_keys_than_asked_for(case: Case) -> None:
    for key in "abcde":
        await case.enqueue(key)
    for limit in (0, 1, 3, 5, 100):
        expect(len(await case.eligible(limit)), min(limit, 5), f"the keys listed with limit {limit}")


@scenario(Need.CLOCK)
async def a_limited_listing_has_the_first_keys(case: Case) -> None:
    for number in range(30):
        await case.enqueue(f"k{number:02}", priority=number % 3)
    expect(await case.eligible(4), ["k02", "k05", "k08", "k11"], "the first four keys")


@scenario(Need.CLOCK)
async def twins_do_not_count_towards_the_limit_of_a_listing(case: Case) -> None:
    for key in ("a", "b"):
        await case.enqueue(key, priority=9)
    await case.lease()
    for key in ("a", "b", "c", "d"):
        await case.enqueue(key, priority=9)
    for queue in (case.queue, await case.peer()):
        snapshot = await queue.enumerate(2)
        expect([queued.key for queued in snapshot.queued], ["c", "d"], "the eligible keys")
        expect(sorted(twin.key for twin in snapshot.twins), ["a", "b"], "the twins")


@scenario(Need.CLOCK)
async def a_key_that_came_due_stands_where_its_queued_time_puts_it(case: Case) -> None:
    await case.enqueue("early", not_before=case.later(60))
    case.advance(1)
    await case.enqueue("middle")
    case.advance(1)
    await case.enqueue("late", not_before=case.later(1))
    case.advance(60)
    expect(await case.eligible(), ["early", "middle", "late"], "the eligible keys")


@scenario(Need.CLOCK)
async def a_raised_priority_moves_a_queued_key_forward(case: Case) -> None:
    for key in ("a", "b", "c"):
        await case.enqueue(key)
    await case.enqueue("c", priority=1)
    expect(await case.eligible(), ["c", "a", "b"], "the eligible keys")


@scenario(Need.CLOCK)
async def a_long_queue_is_started_in_order_and_each_key_once(case: Case) -> None:
    expected = []
    for number in range(120):
        await case.enqueue(f"k{number:03}", priority=number % 4)
        expected.append((-(number % 4), number // 40, f"k{number:03}"))
        case.advance(number % 40 // 39)
    started: list[str] = []
    while batch := (await case.lease(limit=7)).started:
        started += [owned.key for owned in batch]
    expect(started, [key for *_, key in sorted(expected)], "the started keys")
