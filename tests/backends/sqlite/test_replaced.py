"""A queue file that is replaced while the log of a killed process lies beside it: noticed, and never by mistake."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.sqlite import eligible, python, shell, sqlite_queue
from workqueue.errors import StoreUnusableError

# Each ends as kill -9 ends a process: nothing is closed.
LIVES = """
import asyncio, os, sys
from workqueue import Options
from workqueue.backends import open_queue
from workqueue.backends.sqlite.wal import Log

async def enqueue(count, then=lambda: os._exit(9), between=None):
    async with open_queue("sqlite:///" + sys.argv[1]) as queue:
        for number in range(count):
            await queue.queue(f"key-{number}", Options(payload=b"x" * 100_000 if count > 100 else None))
            if between is not None and number == 5:
                await between()
        then()
"""

KILLED = "asyncio.run(enqueue(int(sys.argv[2])))"

KILLED_WHILE_WRITING_BACK = """
def dying(write_back):
    def die_at_point(log):
        def traced(statement):
            if statement.startswith(sys.argv[2]) and not statement.startswith("BEGIN") or points.pop(statement, None):
                os._exit(9)
            if "wal_checkpoint" in statement:
                points["BEGIN IMMEDIATE"] = sys.argv[2] == "BEGIN"
        points = {}
        log._connection.set_trace_callback(traced)
        write_back(log)
    return die_at_point

Log.write_back = dying(Log.write_back)
asyncio.run(enqueue(200))
"""

# What SQLite does when the last one closes the file cannot be cut in two, but looked like: a file that was written to.
KILLED_WHILE_CLOSING = """
def closed(close):
    def die(log, **how):
        close(log, **how)
        os.utime(sys.argv[1])
        os._exit(9)
    return die

Log.close = closed(Log.close)
asyncio.run(enqueue(int(sys.argv[2]), then=lambda: None))
"""

KILLED_BESIDE_ANOTHER = """
async def beside():
    async with open_queue("sqlite:///" + sys.argv[1]) as other:
        await other.queue("key-0")

asyncio.run(enqueue(100, between=beside))
"""


KILLS = [(KILLED, 20), (KILLED, 200), (KILLED_BESIDE_ANOTHER, 0)]


def lived(file: Path, script: str, *args: object) -> None:
    ended = python(LIVES + script, file, *args)
    assert ended.code == 9, ended.err


def backed_up(file: Path) -> Path:
    backup = file.with_name("backup.db")
    with shell(file) as living, shell(backup) as copy:
        living.backup(copy)
    return backup


def copied_over(backup: Path, file: Path) -> None:
    shutil.copyfile(backup, file)


def moved_over(backup: Path, file: Path) -> None:
    backup.rename(file)


def unpacked_over(backup: Path, file: Path) -> None:
    seconds = int(backup.stat().st_mtime) - 3600
    shutil.copyfile(backup, file)
    os.utime(file, (seconds, seconds))


@pytest.mark.parametrize("put_back", [copied_over, moved_over, unpacked_over])
@pytest.mark.parametrize("killed", KILLS, ids=["few", "much", "beside"])
async def test_a_backup_put_over_the_file_of_a_killed_process_is_refused_until_the_old_log_is_gone(
    tmp_path: Path, put_back: Callable[[Path, Path], None], killed: tuple[str, int]
) -> None:
    file = tmp_path / "q.db"
    async with sqlite_queue(file) as queue:
        await queue.queue("backed-up")
    backup = backed_up(file)
    lived(file, *killed)

    put_back(backup, file)

    for _ in range(2):
        with pytest.raises(StoreUnusableError, match=r"replaced or restored.*delete .*q.db-wal"):
            await sqlite_queue(file).__aenter__()
    for side in ("-wal", "-shm"):
        (tmp_path / f"q.db{side}").unlink()
    async with sqlite_queue(file) as queue:
        assert await eligible(queue) == ["backed-up"]


@pytest.mark.parametrize(
    ("script", "argument", "keys"),
    [
        (KILLED, 1, 1),
        (KILLED, 200, 200),
        (KILLED_WHILE_WRITING_BACK, "UPDATE", 0),
        (KILLED_WHILE_WRITING_BACK, "PRAGMA wal_checkpoint", 0),
        (KILLED_WHILE_WRITING_BACK, "BEGIN", 0),
        (KILLED_WHILE_CLOSING, 20, 20),
        (KILLED_WHILE_CLOSING, 200, 200),
        (KILLED_BESIDE_ANOTHER, "", 100),
    ],
)
async def test_a_file_whose_process_was_killed_opens_as_ever(
    tmp_path: Path, script: str, argument: object, keys: int
) -> None:
    lived(tmp_path / "q.db", script, argument)

    async with sqlite_queue(tmp_path / "q.db") as queue:
        assert len(await eligible(queue)) >= max(keys, 1)
        await queue.queue("another")


async def test_a_killed_file_that_was_moved_with_its_log_by_an_archive_opens(tmp_path: Path) -> None:
    lived(tmp_path / "q.db", KILLED, 20)
    seconds = int((tmp_path / "q.db").stat().st_mtime)
    (tmp_path / "elsewhere").mkdir()
    for name in ("q.db", "q.db-wal", "q.db-shm"):
        shutil.copy(tmp_path / name, tmp_path / "elsewhere")
    os.utime(tmp_path / "elsewhere" / "q.db", (seconds, seconds))

    async with sqlite_queue(tmp_path / "elsewhere" / "q.db") as queue:
        assert len(await eligible(queue)) == 20


async def test_a_copy_without_a_log_opens_under_any_name_and_outlives_a_kill(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "living.db") as queue:
        await queue.queue("a")
        backed_up(tmp_path / "living.db").rename(tmp_path / "q.db")
        os.utime(tmp_path / "q.db")
    opened = "asyncio.run(open_queue(f'sqlite:///{sys.argv[1]}?name=new').__aenter__()); os._exit(9)"
    lived(tmp_path / "q.db", opened)

    async with sqlite_queue(tmp_path / "q.db") as queue:
        assert await eligible(queue) == ["a"]


async def test_a_file_in_use_is_opened_by_others_whatever_its_time(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        os.utime(tmp_path / "q.db")
        ended = python(LIVES + "asyncio.run(enqueue(3, then=lambda: None))", tmp_path / "q.db")

        assert ended.code == 0, ended.err
        assert len(await eligible(queue)) == 4
