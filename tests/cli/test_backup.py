"""`workqueue backup` and `restore`: what was acknowledged is in the copy, and what is put back stays."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.processes import Ended
from tests.support.programs import workqueue
from tests.support.sqlite import eligible, lease, python, shell, sqlite_queue
from workqueue import Options

KILLED = """
import asyncio, os, sys
from workqueue.backends import open_queue

async def die(keys):
    queue = await open_queue("sqlite:///" + sys.argv[1]).__aenter__()
    for key in keys:
        await queue.queue(key)
    os._exit(9)

asyncio.run(die(sys.argv[2:]))
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/q.db"


def run(*args: str | Path, env: dict[str, str] | None = None) -> Ended:
    return workqueue(*map(str, args), env=env)


async def enqueued(file: Path, key: str) -> None:
    async with sqlite_queue(file) as queue:
        await queue.queue(key)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def keys(file: Path) -> list[str]:
    with shell(file) as connection:
        return [row[0] for row in connection.execute("SELECT key FROM queued ORDER BY key")]


async def test_a_backup_of_a_queue_in_use_has_every_key_acknowledged_before_it(tmp_path: Path, url: str) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue_many([(f"key-{number:04}", Options()) for number in range(1000)])

        ended = run("backup", url, tmp_path / "copy.db", "--json")

        await queue.queue("later")
    assert ended.json == {"file": str(tmp_path / "copy.db"), "keys": 1000}
    assert len(keys(tmp_path / "copy.db")) == 1000
    assert names(tmp_path) == ["copy.db", "q.db"]


async def test_a_backup_put_back_over_a_killed_process_is_what_runs_and_the_old_file_is_kept(
    tmp_path: Path, url: str
) -> None:
    await enqueued(tmp_path / "q.db", "backed-up")
    run("backup", url, tmp_path / "copy.db")
    assert python(KILLED, tmp_path / "q.db", "a", "b").code == 9

    ended = run("restore", tmp_path / "copy.db", url, "--json")

    assert (ended.code, ended.json["keys"]) == (0, 1)
    assert keys(tmp_path / "q.db") == ["backed-up"]
    assert keys(Path(ended.json["before"])) == ["a", "b", "backed-up"]
    async with sqlite_queue(tmp_path / "q.db") as queue:
        assert [owned.key for owned in (await lease(queue)).started] == ["backed-up"]


async def test_what_was_restored_survives_a_kill_right_after(tmp_path: Path, url: str) -> None:
    async with sqlite_queue(tmp_path / "living.db") as living:
        await living.queue("a")
        run("backup", f"sqlite:///{tmp_path}/living.db", tmp_path / "copy.db")
    run("restore", tmp_path / "copy.db", url)
    python(KILLED, tmp_path / "q.db", "b")

    async with sqlite_queue(tmp_path / "q.db") as queue:
        assert await eligible(queue) == ["a", "b"]


async def test_a_file_that_is_open_is_not_replaced(tmp_path: Path, url: str) -> None:
    await enqueued(tmp_path / "old.db", "old")
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("living")
        script = "import sys; from workqueue.cli.start import start; start()"

        elsewhere = python(script, "restore", tmp_path / "old.db", url)
        here = run("restore", tmp_path / "old.db", url)

        assert (elsewhere.code, here.code) == (1, 1)
        assert "q.db is open in a process" in elsewhere.err
        assert await eligible(queue) == ["living"]
    assert names(tmp_path) == ["old.db", "q.db"]


def test_a_restored_file_keeps_the_rights_of_the_old_one_and_a_backup_is_its_owners_alone(
    tmp_path: Path, url: str
) -> None:
    run("enqueue", "a", "--queue", f"{url}?mode=0640")
    run("backup", url, tmp_path / "copy.db")
    (tmp_path / "copy.db").chmod(0o600)

    run("restore", tmp_path / "copy.db", url)

    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("q.db", "copy.db")] == [0o640, 0o600]


def nothing(path: Path) -> None:
    pass


def empty(path: Path) -> None:
    path.touch()


def no_database(path: Path) -> None:
    path.write_bytes(b"a" * 8192)


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")


def a_folder(path: Path) -> None:
    path.mkdir()


def damaged(path: Path) -> None:
    run("enqueue", *(f"key-{number}" for number in range(300)), "--queue", f"sqlite:///{path}")
    content = path.read_bytes()
    path.write_bytes(content[:20000] + b"\xff" * 9000 + content[29000:])


@pytest.mark.parametrize("make", [nothing, empty, no_database, of_another_program, a_folder, damaged])
def test_what_is_no_backup_is_not_put_in_the_place_of_a_queue(
    tmp_path: Path, url: str, make: Callable[[Path], None]
) -> None:
    run("enqueue", "living", "--queue", url)
    make(tmp_path / "backup.db")

    for args in (("restore", tmp_path / "backup.db", url), ("backup", f"sqlite:///{tmp_path}/backup.db", "new.db")):
        ended = run(*args)

        assert ended.code == 1
        assert ended.err.startswith("workqueue: ")
        assert len(ended.err.splitlines()) == 1
    assert keys(tmp_path / "q.db") == ["living"]
    assert not [path for path in tmp_path.iterdir() if ".part" in path.name or "before" in path.name]


@pytest.mark.parametrize("target", ["q.db", "old.txt", "no/such/folder.db"])
def test_a_backup_overwrites_nothing(tmp_path: Path, url: str, target: str) -> None:
    run("enqueue", "a", "--queue", url)
    (tmp_path / "old.txt").write_text("old", encoding="utf-8")

    ended = run("backup", url, tmp_path / target)

    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert (tmp_path / "old.txt").read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("place", ["memory://", "redis://localhost/0", "gs://bucket", "nonsense", "sqlite:///a%00b"])
def test_only_a_sqlite_file_is_backed_up_and_restored(tmp_path: Path, place: str) -> None:
    for args in (("backup", place, tmp_path / "a"), ("restore", tmp_path / "a", place)):
        ended = run(*args)

        assert ended.code == 2
        assert len(ended.err.splitlines()) == 1


def test_a_backup_is_not_restored_over_itself(tmp_path: Path, url: str) -> None:
    run("enqueue", "a", "--queue", url)
    os.link(tmp_path / "q.db", tmp_path / "link.db")

    for name in ("q.db", "link.db"):
        assert run("restore", tmp_path / name, url).code == 1
    assert keys(tmp_path / "q.db") == ["a"]
