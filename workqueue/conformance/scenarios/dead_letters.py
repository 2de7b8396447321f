"""A dead letter is the record of a key that was given up; a new event is a new budget."""

from __future__ import annotations

from workqueue.conformance.case import Case, expect, expect_of, refused
from workqueue.conformance.scenario import Need, scenario, scenarios
from workqueue.errors import InvalidOptionsError
from workqueue.interface import KeyStatus
from workqueue.options import Options

_PLAIN = Options()

ERRORS = {
    "plain": "boom",
    "empty": "",
    "odd characters": "ValueError: «é» 日本 \U0001f600\n\ttab 'quote' \"double\" %s {0} \\ \x00",
    "a surrogate, as in a file name": "FileNotFoundError: 'caf\udce9'",
    "long": "x" * 4096,
}


@scenario(Need.CLOCK)
async def a_dead_letter_tells_what_happened(case: Case) -> None:
    began = case.now
    await case.enqueue("a", priority=7, payload=b"p", meta={"n": "v"})
    case.advance(10)
    await (await case.start("a")).dead_letter("boom")
    letter = await case.dead_letter("a")
    expect_of(letter, "the dead letter", key="a", priority=7, attempts=1, error="boom")
    expect_of(letter, "the dead letter", queued_time=began, failed_time=case.now)
    expect_of(letter, "the dead letter", payload=b"p", meta={"n": "v"})


@scenario()
async def an_error_that_is_no_text_is_refused_and_the_key_kept(case: Case) -> None:
    owned = await case.started("a")

    async def give_up() -> bool:
        return await owned.dead_letter(ValueError("boom"))  # type: ignore[arg-type]

    await refused(InvalidOptionsError, give_up())
    expect(await owned.dead_letter("boom"), True, "dead_letter() afterwards")


@scenario(Need.CLOCK)
async def the_state_of_a_dead_lettered_key_tells_what_happened(case: Case) -> None:
    began = case.now
    await case.failed("a", priority=7)
    state = await case.get("a")
    expect_of(state, "the state", status=KeyStatus.DEAD_LETTER, attempts=1, priority=7)
    expect_of(state, "the state", error="boom", failed_time=case.now, queued_time=began)


@scenario(Need.CLOCK)
async def a_dead_lettered_key_is_not_started(case: Case) -> None:
    await case.failed("a")
    case.advance(3600)
    expect((await case.lease()).started, [], "the started keys")
    everything = await case.everything()
    expect([place for place, keys in everything.items() if keys], ["dead-lettered"], "where there are keys")


@scenarios(ERRORS)
async def an_error_text_is_kept(case: Case, error: str) -> None:
    await case.failed("a", error)
    readable = error.encode("utf-8", "replace").decode()
    expect((await case.dead_letter("a")).error, readable, "the error text")


@scenario(Need.CLOCK)
async def a_second_failure_replaces_the_dead_letter(case: Case) -> None:
    await case.failed("a", "first", payload=b"1")
    case.advance(10)
    await case.failed("a", "second", payload=b"2")
    letters = await case.dead_letters()
    expect([(d.error, d.payload, d.failed_time) for d in letters], [("second", b"2", case.now)], "the dead letters")


@scenario()
async def an_enqueue_of_a_dead_lettered_key_is_a_new_budget(case: Case) -> None:
    await (await case.started("a")).requeue()
    await (await case.start("a")).dead_letter("boom")
    await case.enqueue("a")
    expect((await case.get("a")).status, KeyStatus.QUEUED, "the status")
    expect((await case.get("a")).attempts, 0, "the attempts")
    expect([letter.key for letter in await case.dead_letters()], ["a"], "the dead letters")
    expect((await case.start("a")).attempts, 1, "the attempts of the next start")
    expect((await case.get("a")).status, KeyStatus.IN_PROGRESS, "the status once started")


@scenario()
async def an_enqueue_of_a_dead_lettered_key_does_not_bring_back_its_payload(case: Case) -> None:
    await case.failed("a", payload=b"old", meta={"n": "old"})
    owned = await case.started("a")
    expect_of(owned, "the owned key", payload=None, meta={})


@scenario()
async def completing_a_key_deletes_its_dead_letter(case: Case) -> None:
    await case.failed("a")
    await case.failed("b")
    await (await case.started("a")).complete()
    expect([letter.key for letter in await case.dead_letters()], ["b"], "the dead letters")
    expect(await case.gone("a"), True, "the key is gone")


@scenario()
async def a_requeue_or_a_release_leaves_the_dead_letter(case: Case) -> None:
    await case.failed("a")
    await (await case.started("a")).release()
    await (await case.start("a")).requeue()
    expect([letter.error for letter in await case.dead_letters()], ["boom"], "the errors")


@scenario()
async def dead_lettering_leaves_a_twin_with_a_new_budget(case: Case) -> None:
    await (await case.started("a")).requeue()
    owned = await case.start("a")
    await case.enqueue("a", priority=3, payload=b"twin")
    expect(await owned.dead_letter("boom"), True, "dead_letter()")
    state = await case.get("a")
    expect_of(state, "the twin", status=KeyStatus.QUEUED, attempts=0, payload=b"twin")
    expect((await case.start("a")).attempts, 1, "the attempts of its start")


@scenario()
async def every_dead_letter_is_listed_once(case: Case) -> None:
    keys = [f"k{number:03}" for number in range(230)]
    await case.queue.queue_many([(key, _PLAIN) for key in keys])
    for owned in (await case.lease()).started:
        await owned.dead_letter(owned.key)
    letters = await case.dead_letters()
    expect([letter.key for letter in letters], keys, "the dead letters")
    expect([letter.error for letter in letters], keys, "their errors")


@scenario()
async def dead_letters_may_be_dropped_while_they_are_listed(case: Case) -> None:
    for number in range(20):
        await case.failed(f"k{number}")
    async for letter in (await case.queue.enumerate(0)).dead_letters:
        expect(await letter.drop(), True, "drop()")
    expect(await case.dead_letters(), [], "the dead letters")
