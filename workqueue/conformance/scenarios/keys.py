"""Which keys are accepted, which are refused, and that an accepted one comes back as it was, whatever it looks like."""

from __future__ import annotations

from typing import Any

from workqueue.conformance.case import Case, expect, refused
from workqueue.conformance.scenario import Need, scenario, scenarios
from workqueue.errors import InvalidKeyError, InvalidOptionsError, KeyNotFoundError
from workqueue.interface import KeyStatus
from workqueue.options import Options

HOSTILE = {
    "slashes": ["/", "//", "a/b/c", "/a", "a/", "a//b"],
    "dots": [".", "..", "../..", "a/../b", "./a", "..%2f"],
    "spaces": [" ", "  ", " a", "a ", "a b", "\u00a0", "\u2028", "\u3000"],
    "punctuation": ["?", "%", "%00", "%2F", "#", "&a=b", "a?x=1#y", ":", ";", "*", "[a]", "{a}", "}{", "\\", "|", "~"],
    "quotes": ["'", '"', "`", "'; DROP TABLE queued; --", "$(id)", "${x}", "<b>", "a,b", "a=b", "-", "--help", "+"],
    "unicode": ["é", "e\u0301", "日本", "\U0001f600", "\u202eabc", "\ufeff", "\ufffe", "\U0010ffff", "\u0130", "ß"],
    "names of ours": ["queued", "in-progress", "dead-letter", "queued/a", "in-progress/a", "default", "null", "0"],
    "long": ["x" * 1000, "é" * 500, "\U0001f600" * 250, "a/" * 500],
}

FORBIDDEN = {
    "empty": "",
    "1001 bytes": "x" * 1001,
    "1001 bytes in 501 characters": "é" * 500 + "x",
    "a null byte": "a\x00b",
    "a line feed": "a\n",
    "the last C0 control": "\x1f",
    "DEL": "a\x7f",
    "the first C1 control": "\x80",
    "the last C1 control": "é\x9f",
    "a lone high surrogate": "a\ud800",
    "a lone low surrogate": "\udfffa",
    "bytes": b"a",
    "none": None,
}


@scenarios(HOSTILE, Need.CLOCK)
async def a_key_of_odd_looks_lives_a_whole_life(case: Case, keys: list[str]) -> None:
    for key in keys:
        await case.enqueue(key, payload=key.encode())
    expect(await case.eligible(), sorted(keys), "the eligible keys")
    for owned in (await case.lease()).started:
        expect(owned.payload, owned.key.encode(), "the payload")
        expect((await case.get(owned.key)).status, KeyStatus.IN_PROGRESS, "the status")
        expect(await owned.dead_letter("odd"), True, "dead_letter()")
    expect([letter.key for letter in await case.dead_letters()], sorted(keys), "the dead letters")
    for letter in await case.dead_letters():
        expect(await letter.requeue(), True, "re-drive")
    for owned in (await case.lease()).started:
        expect(await owned.complete(), True, "complete()")
    expect(await case.everything(), {"in progress": [], "queued": [], "twins": [], "dead-lettered": []})


@scenario()
async def keys_that_differ_in_one_character_are_different_keys(case: Case) -> None:
    keys = ["a", "A", "a ", " a", "a/", "é", "e\u0301", "%61", "a\u200b"]
    for key in keys:
        await case.enqueue(key)
    expect(sorted(await case.eligible()), sorted(keys), "the eligible keys")


@scenarios(FORBIDDEN)
async def a_forbidden_key_is_refused_and_nothing_is_stored(case: Case, key: Any) -> None:
    await refused(InvalidKeyError, case.queue.queue(key))
    await refused(InvalidKeyError, case.queue.queue_many([("good", Options()), (key, Options())]))
    expect(await case.eligible(), [], "the eligible keys")


NOT_OPTIONS: list[Any] = [None, 5, "priority=1", {"priority": 1}]
NOT_ITEMS: list[Any] = [
    None,
    5,
    "ab",
    ["a", "b"],
    [("a",)],
    [("a", None)],
    [("good", Options()), ("a", {"priority": 1})],
]


@scenario()
async def what_is_no_options_is_refused_and_nothing_is_stored(case: Case) -> None:
    for options in NOT_OPTIONS:
        await refused(InvalidOptionsError, case.queue.queue("a", options))
    for items in NOT_ITEMS:
        await refused(InvalidOptionsError, case.queue.queue_many(items))
    expect(await case.eligible(), [], "the eligible keys")


@scenario()
async def asking_for_a_key_that_is_nowhere_says_so(case: Case) -> None:
    await refused(KeyNotFoundError, case.get("nowhere"))
    await refused(KeyNotFoundError, case.get("not\x00allowed"))
    await refused(KeyNotFoundError, case.get("x" * 2000))


NO_TEXT: list[Any] = [None, 5, b"k", ["k"], "a\ud800"]


@scenario()
async def what_is_no_text_is_refused_by_a_look(case: Case) -> None:
    for key in NO_TEXT:
        await refused(InvalidKeyError, case.get(key))


@scenario(Need.SEARCH)
async def what_is_no_text_is_refused_by_a_search(case: Case) -> None:
    for key in NO_TEXT:
        await refused(InvalidKeyError, case.queue.find(key))


@scenario()
async def queueing_many_stores_every_one_with_its_options(case: Case) -> None:
    items = [(f"k{number}", Options(priority=number, payload=bytes([number]))) for number in range(50)]
    await case.queue.queue_many([*items, ("k7", Options(priority=99))])
    queued = (await case.queue.enumerate(100)).queued
    expect(len(queued), 50, "the number of keys")
    expect(queued[0].key, "k7", "the key of the highest priority")
    expect(all(q.payload == bytes([int(q.key[1:])]) for q in queued), True, "every payload is its key's")


@scenario()
async def queueing_none_at_all_is_allowed(case: Case) -> None:
    await case.queue.queue_many([])
    expect(await case.eligible(), [], "the eligible keys")
