"""P6: why a key failed is seen wherever it waits, until it completes or starts over; and since when it runs."""

from __future__ import annotations

from datetime import timedelta

from workqueue.conformance.case import Case, expect, expect_of
from workqueue.conformance.scenario import Need, scenario

_MINUTE = timedelta(minutes=1)


@scenario(Need.CLOCK)
async def a_failed_key_says_why_until_it_completes(case: Case) -> None:
    owned = await case.started("a", priority=3, payload=b"p", meta={"m": "1"})
    await owned.requeue(backoff=_MINUTE, error="boom")
    expect((await case.get("a")).last_error, "boom", "the last error while delayed")
    case.advance(60)
    listed = await case.listed("a")
    expect_of(listed, "the listed key", last_error="boom", meta={"m": "1"})
    again = await case.start("a")
    expect((await case.observed("a")).last_error, "boom", "the last error while in progress")
    expect_of(again, "the next attempt", meta={"m": "1"}, payload=b"p")
    await again.complete()
    await case.enqueue("a")
    expect((await case.get("a")).last_error, "", "the last error after it completed")


@scenario()
async def the_newest_error_counts_and_a_requeue_without_one_leaves_it(case: Case) -> None:
    await (await case.started("a")).requeue(error="first")
    await (await case.start("a")).requeue(error="second")
    expect((await case.get("a")).last_error, "second", "the last error")
    await (await case.start("a")).requeue()
    expect((await case.get("a")).last_error, "second", "the last error after a requeue without one")
    await (await case.start("a")).release()
    expect((await case.get("a")).last_error, "second", "the last error after a release")


@scenario()
async def an_event_for_a_failed_key_does_not_hide_why_it_failed(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("a", meta={"m": "2"})
    await owned.requeue(error="boom")
    await case.enqueue("a", payload=b"new")
    expect((await case.get("a")).last_error, "boom", "the last error")
    expect(dict((await case.get("a")).meta), {"m": "2"}, "the meta")


@scenario(Need.CLOCK)
async def a_key_that_starts_over_has_no_error_of_before(case: Case) -> None:
    await (await case.started("a", meta={"m": "1"})).requeue(error="boom")
    await (await case.start("a")).requeue(delay=_MINUTE)
    expect((await case.get("a")).last_error, "", "the last error after a requeue that was asked for")
    expect(dict((await case.get("a")).meta), {"m": "1"}, "the meta")


@scenario()
async def the_twin_of_a_key_given_up_has_no_error_of_before(case: Case) -> None:
    await (await case.started("a")).requeue(error="boom")
    owned = await case.start("a")
    await owned.requeue(error="boom again")
    owned = await case.start("a")
    await case.enqueue("a")
    await owned.dead_letter("final")
    state = await case.get("a")
    expect_of(state, "the state", last_error="", attempts=0)
    expect(state.error, "final", "the error of the dead letter beside it")


@scenario()
async def a_redriven_key_has_no_error_of_before(case: Case) -> None:
    await (await case.started("a")).requeue(error="boom")
    await (await case.start("a")).dead_letter("final")
    letter = await case.dead_letter("a")
    expect_of(letter, "the dead letter", error="final", meta={})
    await letter.requeue()
    expect((await case.get("a")).last_error, "", "the last error")


@scenario()
async def a_long_error_is_cut_to_512_bytes_of_valid_text(case: Case) -> None:
    await (await case.started("a")).requeue(error="é" * 1000)
    kept = (await case.get("a")).last_error
    expect(kept.rstrip("…"), "é" * len(kept.rstrip("…")), "the text")
    expect(500 <= len(kept.encode()) <= 512, True, f"that {len(kept.encode())} bytes of it are kept")


@scenario(Need.CLOCK)
async def a_key_in_progress_says_since_when_and_until_when(case: Case) -> None:
    began = case.now
    owned = await case.started("a")
    observed = await case.observed("a")
    _about(observed.attempt_began, began, "when the attempt began")
    _about(observed.lease_expires, began + case.target.lease, "when the lease lapses")
    case.advance(int(case.target.lease.total_seconds()))
    state = await case.get("a")
    _about(state.attempt_began, began, "when the attempt began, a lease later")
    renewed = state.lease_expires
    expect(renewed is not None and renewed > case.now, True, f"that {renewed} is to come")
    await owned.requeue()
    state = await case.get("a")
    expect_of(state, "the state", attempt_began=None, lease_expires=None)


def _about(found: object, expected: object, what: str) -> None:
    """Whole seconds are all that some stores keep."""
    near = found is not None and abs(found - expected) <= timedelta(seconds=1)  # type: ignore[operator]
    expect(near, True, f"{what}: found {found!r}, which is about {expected!r}")


@scenario(Need.CLOCK)
async def the_dead_letters_of_a_listing_are_those_from_before_it(case: Case) -> None:
    for key in ("a", "b", "c"):
        await case.failed(key)
    case.advance(2)
    met: list[str] = []
    async for letter in (await case.queue.enumerate(0)).dead_letters:
        met.append(letter.key)
        case.advance(2)
        expect(await letter.requeue(), True, "the re-drive")
        await (await case.start(letter.key)).dead_letter("again")
        expect(len(met) <= 3, True, f"that each was met once: {met}")
    expect(sorted(met), ["a", "b", "c"], "the letters met")
