from __future__ import annotations

import asyncio
import base64
import signal
import sqlite3
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from tests.support.processes import Ended, ran, started
from tests.support.programs import run, workqueue
from workqueue import Options, open_queue
from workqueue.fallbacks import FullQueue
from workqueue.interface import OwnedInProgressKey
from workqueue.optional import LeaseRequest


async def start(queue: FullQueue) -> OwnedInProgressKey:
    [owned] = (await queue.lease(LeaseRequest(limit=1, concurrency=10))).started
    return owned


def test_keys_from_the_command_line_and_from_stdin_are_enqueued(url: str) -> None:
    assert run(url, "enqueue", "--stdin", "a", stdin=b"b\r\n\nc\n").out == "enqueued 3\n"

    assert [row["key"] for row in run(url, "ls", "--json").json["queued"]] == ["a", "b", "c"]


def test_what_a_producer_says_is_kept_with_the_key(url: str) -> None:
    said = ["--priority", "7", "--delay", "1h", "--floor", "--payload", "hällo", "--meta", "a=1", "--meta", "b=2=3"]

    assert run(url, "enqueue", "k", *said).code == 0

    state = run(url, "get", "k", "--json").json
    assert (state["status"], state["priority"], state["floor"]) == ("queued", 7, True)
    assert base64.b64decode(state["payload_base64"]).decode() == "hällo"
    assert state["meta"] == {"a": "1", "b": "2=3"}
    assert state["not_before"] > state["queued_time"]


def test_a_payload_can_come_from_a_file(url: str, tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(b"\x00\xff")

    run(url, "enqueue", "k", "--payload-file", str(tmp_path / "payload"))

    assert base64.b64decode(run(url, "get", "k", "--json").json["payload_base64"]) == b"\x00\xff"


def test_an_invalid_key_is_refused_and_shown_escaped(url: str) -> None:
    ended = run(url, "enqueue", "good", "bad\x1b[2J")

    assert ended.code == 2
    assert r"bad\x1b[2J: the key has the forbidden character U+001B" in ended.err
    assert run(url, "get", "good").code == 1


def test_what_was_stored_before_a_bad_line_is_said(url: str) -> None:
    lines = b"".join(b"key-%d\n" % number for number in range(10_000)) + b"\xff\n"

    ended = run(url, "enqueue", "--stdin", stdin=lines)

    assert ended.code == 2
    assert "line 10001 of stdin is not UTF-8" in ended.err
    assert f"; {run(url, 'stats', '--json').json['queued']} keys before were stored" in ended.err


def test_a_key_that_is_nowhere_ends_with_1(url: str) -> None:
    run(url, "enqueue", "somebody")
    ended = run(url, "get", "nobody")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.count("\n") == 1
    assert "nobody" in ended.err


def test_a_key_in_progress_is_shown_with_its_owner_and_its_twin(url: str) -> None:
    async def scenario() -> dict[str, object]:
        async with open_queue(url, owner="blue") as queue:
            await queue.queue("k")
            await start(queue)
            await queue.queue("k")
            found: dict[str, object] = (await asyncio.to_thread(run, url, "get", "k", "--json")).json
            return found

    state = asyncio.run(scenario())
    assert (state["status"], state["owner"], state["also"]) == ("in-progress", "blue", ["queued"])


def test_the_listing_says_where_every_key_is(url: str) -> None:
    async def arrange() -> None:
        async with open_queue(url) as queue:
            await queue.queue("dead")
            await (await start(queue)).dead_letter("ValueError: no")
            await queue.queue("running")
            (await start(queue)).abandon()

    asyncio.run(arrange())
    run(url, "enqueue", "running", "next")
    run(url, "enqueue", "later", "--delay", "1h")

    listing = run(url, "ls", "--json").json
    assert listing.pop("totals")["queued"] == 1
    assert listing.pop("cursors") == {}
    assert {name: [row["key"] for row in rows] for name, rows in listing.items()} == {
        "in_progress": ["running"],
        "queued": ["next"],
        "twins": ["running"],
        "delayed": ["later"],
        "dead_letters": ["dead"],
        "unreadable": [],
    }


def test_a_listing_for_people_never_cuts_a_key_off(url: str) -> None:
    key = "k" * 1000
    run(url, "enqueue", key)

    assert key in run(url, "ls").out
    assert run(url, "ls", "--limit", "1").code == 0


def test_an_empty_queue_is_said_to_be_empty(url: str) -> None:
    run(url, "enqueue", "k")
    run(url, "drop", "k")

    assert run(url, "ls").out == "the queue is empty\n"


def test_a_dropped_key_is_gone_and_a_missing_one_is_told(url: str) -> None:
    run(url, "enqueue", "a", "b")

    ended = run(url, "drop", "a", "nobody")

    assert (ended.code, ended.out, ended.err) == (1, "dropped 1\n", "nobody: it is not queued\n")
    assert run(url, "get", "a").code == 1
    assert run(url, "drop", "--json", "b").json == {"dropped": ["b"], "failed": {}}


def test_a_released_key_is_queued_again_and_its_owner_is_told(url: str) -> None:
    async def scenario() -> tuple[Ended, bool]:
        async with open_queue(url) as queue:
            await queue.queue("k")
            owned = await start(queue)
            ended = await asyncio.to_thread(run, url, "release", "--force", "k", "--json")
            return ended, await owned.complete()

    ended, completed = asyncio.run(scenario())
    assert (ended.json, completed) == ({"released": ["k"], "failed": {}}, False)
    assert run(url, "get", "k", "--json").json["attempts"] == 1


def test_a_released_key_of_high_priority_is_eligible_at_once(url: str) -> None:
    async def scenario() -> None:
        async with open_queue(url) as queue:
            await queue.queue("k", Options(priority=7))
            await start(queue)

    asyncio.run(scenario())
    run(url, "release", "--force", "k")

    assert [row["key"] for row in run(url, "ls", "--json").json["queued"]] == ["k"]


def test_a_key_that_nobody_has_is_not_released(url: str) -> None:
    run(url, "enqueue", "k")

    ended = run(url, "release", "--force", "k")

    assert (ended.code, ended.err) == (1, "k: it is not in progress\n")


def test_a_reader_that_has_seen_enough_is_no_error(url: str) -> None:
    run(url, "enqueue", "--stdin", stdin=b"".join(b"key-%d\n" % number for number in range(3000)))
    command = f"{sys.executable} -m workqueue.cli ls --limit 3000 | head -n 1"

    ended = ran(["sh", "-c", command], env={"WORKQUEUE_URL": url})

    assert (ended.out, ended.err) == ("queued\n", "")


def test_a_store_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "not.db").write_text("this is a text file, and by no means a database " * 50)

    ended = workqueue("ls", "--queue", f"sqlite:///{tmp_path}/not.db")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.count("\n") == 1
    assert "Traceback" not in ended.err


def test_a_store_that_is_busy_is_worth_another_try(url: str) -> None:
    run(url, "enqueue", "k")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")

        ended = run(f"{url}?busy_timeout=100ms", "enqueue", "k")

    assert (ended.code, ended.out) == (75, "")
    assert ended.err.count("\n") == 1


def test_a_payload_that_is_too_large_is_one_line(url: str, tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(bytes(300_000))

    ended = run(url, "enqueue", "k", "--payload-file", str(tmp_path / "payload"))

    assert ended.code == 2
    assert "the payload has 300000 bytes" in ended.err


def test_a_line_without_end_is_no_key(url: str) -> None:
    ended = run(url, "enqueue", "--stdin", stdin=b"k" * 200_000)

    assert (ended.code, ended.out) == (2, "")
    assert "a line of more than 65536 bytes" in ended.err


def test_lines_are_enqueued_as_they_come_in_until_the_command_is_interrupted(url: str) -> None:
    command = [sys.executable, "-m", "workqueue.cli", "enqueue", "--stdin"]
    with started(command, env={"WORKQUEUE_URL": url}) as it:
        assert it.stdin is not None
        it.stdin.write("key\n")
        it.stdin.flush()
        wait_until_stored(url, "key")
        it.send_signal(signal.SIGINT)

        assert it.wait(timeout=30) == 130


def wait_until_stored(url: str, key: str) -> None:
    async def waiting() -> None:
        async with open_queue(url) as queue:
            while not (await queue.find(key)).queued:
                await queue.wait(timedelta(seconds=1), concurrency=1)

    asyncio.run(waiting())
