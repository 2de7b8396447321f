"""Commands that only look: they make nothing, and rights to read a SQLite file are enough for them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.processes import Ended
from tests.support.programs import workqueue
from tests.support.sqlite import lease, python, sqlite_queue
from workqueue import Options

START = "from workqueue.cli.start import start; start()"
LOOKS = [("ls",), ("stats",), ("get", "a"), ("dead-letters", "ls"), ("dead-letters", "redrive", "--all", "--dry-run")]
TAKES = [
    ("drop", "a"),
    ("release", "a", "--force"),
    ("dead-letters", "redrive", "a"),
    ("dead-letters", "drop", "--all"),
    ("schedules", "ls"),
    ("schedules", "rm", "a"),
    ("schedules", "pause", "a"),
    ("schedules", "run-now", "a"),
]
KILLED = """
import asyncio, os, sys
from workqueue.backends import open_queue

async def die():
    queue = await open_queue("sqlite:///" + sys.argv[1]).__aenter__()
    await queue.queue("a")
    os._exit(9)

asyncio.run(die())
"""


def without_rights(file: Path, *args: str) -> Ended:
    """One command line of somebody who may read what is in the folder, and nothing else."""
    for path in file.parent.iterdir():
        path.chmod(0o444)
    file.parent.chmod(0o555)
    try:
        # Root may write to everything, except without its capabilities.
        fewer = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
        return python(START, *args, "--queue", f"sqlite:///{file}", before=fewer)
    finally:
        file.parent.chmod(0o755)


@pytest.mark.parametrize("args", [*LOOKS, *TAKES], ids=" ".join)
def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, args: tuple[str, ...]) -> None:
    ended = workqueue(*args, "--queue", f"sqlite:///{tmp_path}/q.db")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"workqueue: there is no {tmp_path}/q.db: nothing was ever enqueued there\n"
    assert list(tmp_path.iterdir()) == []


async def test_looking_writes_nothing_and_shows_the_log(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue_many([("a", Options()), ("b", Options())])
        before = (tmp_path / "q.db-wal").read_bytes()

        shown = python(START, "stats", "--json", "--queue", f"sqlite:///{tmp_path}/q.db").json

        assert shown["queued"] == 2
        assert (tmp_path / "q.db-wal").read_bytes() == before


@pytest.mark.parametrize("args", LOOKS, ids=" ".join)
async def test_who_may_only_read_sees_a_queue_in_use(tmp_path: Path, args: tuple[str, ...]) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        await lease(queue)

        ended = without_rights(tmp_path / "q.db", *args)

    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("is_killed", [False, True])
async def test_who_may_only_read_sees_a_queue_that_nobody_uses(tmp_path: Path, is_killed: bool) -> None:
    if is_killed:
        python(KILLED, tmp_path / "q.db")
    else:
        async with sqlite_queue(tmp_path / "q.db") as queue:
            await queue.queue("a")

    ended = without_rights(tmp_path / "q.db", "stats", "--json")

    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["queued"] == 1


@pytest.mark.parametrize("args", [("enqueue", "b"), ("pause",), ("drop", "a")], ids=" ".join)
async def test_who_may_only_read_is_refused_in_one_line_what_writes(tmp_path: Path, args: tuple[str, ...]) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")

        ended = without_rights(tmp_path / "q.db", *args)

    assert ended.code == 1
    assert "read-only for this user" in ended.err or "may not write" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_name_that_the_file_does_not_have_is_said_with_those_that_it_has(tmp_path: Path) -> None:
    for name in ("builds", "mails"):
        workqueue("enqueue", "a", "--queue", f"sqlite:///{tmp_path}/q.db?name={name}")

    ended = workqueue("ls", "--queue", f"sqlite:///{tmp_path}/q.db?name=biulds")

    assert ended.code == 1
    assert "no queue 'biulds'; it has builds, mails" in ended.err


async def test_a_queue_that_is_only_looked_at_counts_all_that_is_due(tmp_path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(milliseconds=1)
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue_many([(f"key-{number}", Options(not_before=soon)) for number in range(2500)])
        async with sqlite_queue(tmp_path / "q.db", read_only="true") as looking:
            assert (await looking.counts()).queued == 2500
