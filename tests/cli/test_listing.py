"""`workqueue ls`: how many keys there are beside those shown, and which ones are meant."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.programs import run
from workqueue import Options, open_queue
from workqueue.optional import LeaseRequest

KEYS = 120


async def filled(url: str) -> None:
    """120 keys: two in progress, two dead-lettered after two attempts each, the rest queued."""
    async with open_queue(url) as queue:
        await queue.queue_many(
            [(f"{'odd' if number % 2 else 'even'}-{number:03}", Options()) for number in range(KEYS)]
        )
        for _ in range(2):
            started = (await queue.lease(LeaseRequest(2, 2))).started
            for owned in started:
                await owned.requeue()
        first = (await queue.lease(LeaseRequest(2, 2))).started
        await asyncio.gather(*[owned.dead_letter("boom") for owned in first])
        for owned in (await queue.lease(LeaseRequest(2, 2))).started:
            owned.abandon()


def test_a_listing_says_how_many_of_how_many_it_shows(url: str) -> None:
    asyncio.run(filled(url))

    listed = run(url, "ls", "--limit", "1").out

    assert "in progress (1 of 2)\n" in listed
    assert "queued (1 of 116)\n" in listed
    assert "dead letters (1 of 2)\n" in listed
    assert run(url, "ls", "--json").json["totals"] == {
        "in_progress": 2,
        "queued": 116,
        "twins": 0,
        "delayed": 0,
        "dead_letters": 2,
        "unreadable": 0,
    }
    assert "dead letters (1 of 2)" in run(url, "dead-letters", "ls", "--limit", "1").out
    assert run(url, "dead-letters", "ls", "--limit", "1", "--json").json["total"] == 2


def test_what_is_shown_whole_says_so_by_no_number(url: str) -> None:
    run(url, "enqueue", "a")

    assert run(url, "ls").out.splitlines()[0] == "queued"


def test_a_prefix_finds_keys_far_behind_the_limit_and_counts_them(url: str) -> None:
    asyncio.run(filled(url))

    listed = run(url, "ls", "--prefix", "odd-11", "--limit", "3", "--json").json

    assert [row["key"] for row in listed["queued"]] == ["odd-111", "odd-113", "odd-115"]
    assert listed["totals"]["queued"] == 5
    assert listed["dead_letters"] == []
    assert "queued (3 of 5)" in run(url, "ls", "--prefix", "odd-11", "--limit", "3").out


@pytest.mark.parametrize(
    ("state", "places"),
    [
        ("queued", {"queued"}),
        ("in-progress,dead-lettered", {"in_progress", "dead_letters"}),
        ("twins", {"twins"}),
        ("delayed,unreadable", {"delayed", "unreadable"}),
    ],
)
def test_only_the_states_that_are_asked_for_are_listed(url: str, state: str, places: set[str]) -> None:
    asyncio.run(filled(url))

    listed = run(url, "ls", "--state", state, "--json").json

    assert set(listed) == {*places, "totals", "cursors"}
    assert set(listed["totals"]) == places


def test_keys_that_failed_often_are_found_by_their_attempts(url: str) -> None:
    asyncio.run(filled(url))

    listed = run(url, "ls", "--min-attempts", "1", "--json").json

    attempts = [row["attempts"] for place in ("queued", "in_progress", "dead_letters") for row in listed[place]]
    assert len(attempts) == sum(listed["totals"].values())
    assert len(attempts) >= 4
    assert min(attempts) >= 1


@pytest.mark.parametrize(
    ("order", "keys"),
    [
        ("key", ["a", "b", "c"]),
        ("priority", ["b", "c", "a"]),
        ("oldest", ["c", "b", "a"]),
    ],
)
def test_a_listing_is_sorted_as_asked(url: str, order: str, keys: list[str]) -> None:
    for key, priority in (("c", "0"), ("b", "5"), ("a", "-1")):
        run(url, "enqueue", key, "--priority", priority)

    listed = run(url, "ls", "--sort", order, "--json").json["queued"]

    assert [row["key"] for row in listed] == keys


@pytest.mark.parametrize(
    "args",
    [
        ("--state", "lost"),
        ("--sort", "size"),
        ("--min-attempts", "-1"),
        ("--state", ""),
        ("--state", "queued,"),
        ("--cursor", "x"),
        ("--state", "queued", "--cursor", "x"),
        ("--state", "queued", "--sort", "key", "--cursor", "x"),
        ("--older-than", "yesterday"),
    ],
)
def test_what_makes_no_sense_is_refused(url: str, args: tuple[str, ...]) -> None:
    run(url, "enqueue", "a")

    ended = run(url, "ls", *args)

    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("state", ["queued", "dead-lettered", "in-progress"])
def test_a_listing_goes_on_where_the_last_one_ended(url: str, state: str) -> None:
    asyncio.run(filled(url))
    name = {"queued": "queued", "dead-lettered": "dead_letters", "in-progress": "in_progress"}[state]
    limit = "50" if state == "queued" else "1"
    whole = [row["key"] for row in run(url, "ls", "--state", state, "--limit", "1000", "--json").json[name]]

    paged: list[object] = []
    cursor: str | None = ""
    while cursor is not None:
        listed = run(
            url, "ls", "--state", state, "--limit", limit, *(["--cursor", cursor] if cursor else []), "--json"
        ).json
        paged += [row["key"] for row in listed[name]]
        assert listed["totals"][name] == len(whole)
        cursor = listed["cursors"].get(name)

    assert paged == whole


def test_a_reader_is_shown_how_to_go_on(url: str) -> None:
    asyncio.run(filled(url))

    both = run(url, "ls", "--prefix", "odd-", "--limit", "4", "--json").json["queued"]

    said = run(url, "ls", "--state", "queued", "--prefix", "odd-", "--limit", "2").out.splitlines()[-1]

    how = said.partition(": more follow: ")[2].split()
    assert run(url, "ls", "--prefix", "odd-", "--limit", "2", "--json", *how).json["queued"] == both[2:]


def test_a_choice_that_was_not_made_among_all_keys_says_so(url: str) -> None:
    asyncio.run(filled(url))

    chosen = run(url, "ls", "--state", "queued", "--prefix", "odd-", "--look-at", "20").out
    ordered = run(url, "ls", "--state", "queued", "--sort", "key", "--look-at", "20").out

    assert "queued: only the first 20 keys were looked at" in chosen
    assert "queued: only the first 20 keys were looked at" in ordered
    assert "--cursor" not in ordered


@pytest.mark.parametrize(
    ("args", "keys"),
    [
        (("--priority", "5"), ["b"]),
        (("--error", "no such"), ["c"]),
        (("--older-than", "1h"), []),
        (("--older-than", "1ms", "--priority", "0"), ["a", "c"]),
    ],
)
def test_keys_are_found_by_what_is_known_of_them(url: str, args: tuple[str, ...], keys: list[str]) -> None:
    async def fill() -> None:
        async with open_queue(url) as queue:
            await queue.queue("c")
            [owned] = (await queue.lease(LeaseRequest(1, 1))).started
            await owned.requeue(error="no such file")
            await queue.queue_many([("a", Options()), ("b", Options(priority=5))])

    asyncio.run(fill())

    listed = run(url, "ls", *args, "--json").json

    assert sorted(row["key"] for row in [*listed["queued"], *listed["delayed"]]) == keys


def test_nothing_is_said_for_what_it_is(url: str) -> None:
    run(url, "enqueue", "a")

    assert run(url, "ls", "--prefix", "b").out == "no such key\n"
    assert run(url, "dead-letters", "ls").out == "there are no dead letters\n"
    assert run(url, "dead-letters", "ls", "--prefix", "b").out == "no dead letter matches\n"
    assert run(url, "dead-letters", "redrive", "a", "--dry-run").out == "none of these keys is dead-lettered\n"
