"""`drop`, `run-now` and `release` of keys that nobody named: which ones are meant, and what is said of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.programs import run
from workqueue import Options, open_queue
from workqueue.optional import LeaseRequest

LATER = datetime.now(UTC) + timedelta(hours=1)


async def filled(url: str) -> None:
    """Eligible `junk/0` to `junk/2` and `good/0`, delayed `junk/later`, a floored `junk/floor`, a twin and a letter."""
    async with open_queue(url) as queue:
        await queue.queue_many([("junk/dead", Options()), ("junk/twin", Options())])
        dead, _ = sorted((await queue.lease(LeaseRequest(2, 2))).started, key=lambda owned: owned.key)
        await dead.dead_letter("boom")
        await queue.queue_many([(key, Options()) for key in ("junk/0", "junk/1", "junk/2", "good/0", "junk/twin")])
        await queue.queue("junk/later", Options(not_before=LATER, priority=3))
        await queue.queue("junk/floor", Options(not_before=LATER, not_before_floor=True))


def test_dropping_by_prefix_leaves_the_others_and_dead_letters(url: str) -> None:
    asyncio.run(filled(url))

    ended = run(url, "drop", "--prefix", "junk/", "--json")

    assert sorted(ended.json["dropped"]) == ["junk/0", "junk/1", "junk/2", "junk/floor", "junk/later", "junk/twin"]
    listed = run(url, "ls", "--json").json
    assert [row["key"] for row in listed["queued"]] == ["good/0"]
    assert [row["key"] for row in listed["dead_letters"]] == ["junk/dead"]


@pytest.mark.parametrize(
    ("args", "count"),
    [(("--prefix", "junk/"), 6), (("--all",), 7), (("junk/0", "nobody"), 1), (("--priority", "3"), 1)],
)
def test_a_dry_run_counts_and_drops_none(url: str, args: tuple[str, ...], count: int) -> None:
    asyncio.run(filled(url))

    assert run(url, "drop", *args, "--dry-run", "--json").json == {"matching": count}
    assert run(url, "drop", *args, "--dry-run").out == f"{count} keys are meant\n"
    assert run(url, "drop", "--all", "--dry-run", "--json").json == {"matching": 7}


def test_running_now_makes_delayed_keys_eligible_but_not_those_with_a_floor(url: str) -> None:
    asyncio.run(filled(url))

    ended = run(url, "run-now", "--prefix", "junk/", "--json")

    assert ended.json == {
        "advanced": ["junk/later"],
        "failed": {"junk/floor": "it has a floor, and waits for its time"},
    }
    assert ended.code == 1
    first = run(url, "ls", "--state", "queued", "--json").json["queued"][0]
    assert (first["key"], first["priority"]) == ("junk/later", 3)


def test_a_named_key_is_run_now_if_it_waits_for_a_time(url: str) -> None:
    asyncio.run(filled(url))

    ended = run(url, "run-now", "junk/later", "junk/0", "nobody", "--json")

    assert ended.json["advanced"] == ["junk/later"]
    assert ended.json["failed"] == {"junk/0": "it does not wait for a time", "nobody": "it is not queued"}


async def held(url: str) -> None:
    """`job/0` to `job/2` and `mail/0` in progress, of a process that is gone."""
    async with open_queue(url) as queue:
        await queue.queue_many([(key, Options()) for key in ("job/0", "job/1", "job/2", "mail/0")])
        await queue.lease(LeaseRequest(4, 4))


def test_releasing_by_prefix_takes_those_keys_from_their_owners_and_no_others(url: str) -> None:
    asyncio.run(held(url))

    counted = run(url, "release", "--prefix", "job/", "--dry-run", "--json")
    ended = run(url, "release", "--prefix", "job/", "--force", "--json")

    assert counted.json == {"matching": 3}
    assert (sorted(ended.json["released"]), ended.json["failed"]) == (["job/0", "job/1", "job/2"], {})
    listed = run(url, "ls", "--json").json
    assert [row["key"] for row in listed["in_progress"]] == ["mail/0"]
    assert sorted(row["key"] for row in listed["queued"]) == ["job/0", "job/1", "job/2"]


def test_nothing_is_released_unless_somebody_says_that_the_owner_is_gone(url: str) -> None:
    asyncio.run(held(url))

    ended = run(url, "release", "--all")

    assert (ended.code, "--force" in ended.err) == (2, True)
    assert len(run(url, "ls", "--json").json["in_progress"]) == 4


@pytest.mark.parametrize("command", ["drop", "run-now", "release"])
@pytest.mark.parametrize("args", [(), ("a", "--all"), ("a", "--prefix", "b"), ("--all", "--priority", "1")])
def test_which_keys_are_meant_is_said_in_one_way(url: str, command: str, args: tuple[str, ...]) -> None:
    run(url, "enqueue", "a")

    ended = run(url, command, *args, *(["--force"] if command == "release" else []))

    assert (ended.code, ended.out) == (2, "")
    assert "say which keys in one way" in ended.err
