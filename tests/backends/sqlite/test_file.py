"""The SQLite file itself: its URL, who may open it, and what is said of one that cannot be a queue."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest

from tests.support.dispatching import until
from tests.support.sqlite import eligible, lease, locked, python, shell, sqlite_queue
from workqueue import InvalidOptionsError, Options, StoreUnavailableError, open_queue
from workqueue.backends.sqlite import opening
from workqueue.backends.sqlite.file import QueueFile
from workqueue.backends.sqlite.opening import connect, open_queue_file
from workqueue.backends.sqlite.schema import LAYOUT
from workqueue.errors import InvalidSettingError, StoreUnusableError

UNPRIVILEGED = """
import asyncio, os, sys
from workqueue.backends import open_queue

async def enqueue(path):
    async with open_queue(f"sqlite:///{path}") as queue:
        await queue.queue("a")

asyncio.run(enqueue(sys.argv[2]))  # everything is imported before this process loses its rights
if os.getuid() == 0:
    os.setuid(65534)
asyncio.run(enqueue(sys.argv[1]))
"""


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://wq.db",
        "sqlite://host/wq.db",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///a.db#fragment",
        "sqlite:///a.db?synchronous=off",
        "sqlite:///a.db?busy_timeout=0s",
        "sqlite:///a.db?lease=1s&renew=1s",
        "sqlite:///a.db?name=a/b",
        "sqlite:///a.db?cache=shared",
    ],
)
def test_a_url_that_names_no_file_or_an_unknown_setting_is_refused(url: str) -> None:
    with pytest.raises(InvalidSettingError):
        open_queue(url)


@pytest.mark.parametrize("name", ["wq.db", "with space.db", "what?.db", "#1.db", "ünï.db", "100%.db"])
async def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    escaped = name.replace("%", "%25").replace("?", "%3F").replace("#", "%23")

    async with open_queue(f"sqlite:///{tmp_path}/{escaped}") as queue:
        await queue.queue("a")

    assert (tmp_path / name).exists()


async def test_a_relative_path_means_the_directory_in_which_the_queue_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    queue = open_queue("sqlite:///wq.db")
    monkeypatch.chdir("/")

    async with queue:
        await queue.queue("a")

    assert (tmp_path / "wq.db").exists()


async def test_queues_of_different_names_share_a_file_and_nothing_else(tmp_path: Path) -> None:
    builds, deploys = sqlite_queue(tmp_path / "q.db", name="builds"), sqlite_queue(tmp_path / "q.db", name="deploys")
    async with builds, deploys:
        await builds.queue("a")
        (owned,) = (await lease(builds)).started
        await deploys.queue("a")
        await builds.queue("a")

        assert (await builds.counts()).twins == 1
        assert (await deploys.counts()).queued == 1
        assert await owned.complete()
        assert await eligible(builds) == await eligible(deploys) == ["a"]


async def test_a_payload_larger_than_the_setting_is_refused(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db", max_payload="1KiB") as queue:
        with pytest.raises(InvalidOptionsError):
            await queue.queue("a", Options(payload=b"x" * 1025))
        with pytest.raises(InvalidOptionsError):
            await queue.queue_many([("b", Options()), ("a", Options(payload=b"x" * 1025))])

        assert await eligible(queue) == []


@pytest.mark.parametrize("content", [b"not a database, but some text that somebody wrote\n" * 40, os.urandom(8192)])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)

    with pytest.raises(StoreUnusableError, match=re.escape(str(path))):
        await sqlite_queue(path).__aenter__()

    assert path.read_bytes() == content


async def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    with shell(tmp_path / "app.db") as app:
        app.execute("CREATE TABLE users (name TEXT)")

        with pytest.raises(StoreUnusableError, match="another program"):
            await sqlite_queue(tmp_path / "app.db").__aenter__()

        assert app.execute("SELECT name FROM sqlite_master").fetchall() == [("users",)]


async def test_a_file_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
    with shell(tmp_path / "q.db") as newer:
        newer.execute(f"PRAGMA user_version = {LAYOUT + 1}")

    with pytest.raises(StoreUnusableError, match=f"layout {LAYOUT + 1}.*newer release"):
        await sqlite_queue(tmp_path / "q.db").__aenter__()


async def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusableError, match=re.escape(str(tmp_path / "missing" / "q.db"))):
        await sqlite_queue(tmp_path / "missing" / "q.db").__aenter__()


@pytest.mark.parametrize(("exists", "file", "folder"), [(True, 0o444, 0o777), (False, 0, 0o555), (True, 0o666, 0o555)])
def test_a_file_or_directory_that_may_not_be_written_is_named(
    tmp_path: Path, exists: bool, file: int, folder: int
) -> None:
    with tempfile.TemporaryDirectory() as shared:  # pytest's own folders are closed to other users
        path = Path(shared) / "q.db"
        if exists:
            asyncio.run(enqueue(path))
            path.chmod(file)
        Path(shared).chmod(folder)

        ended = python(UNPRIVILEGED, path, tmp_path / "warm.db", complains=True)

        last_line = ended.err.splitlines()[-1]
        assert "StoreUnusableError" in last_line, ended.err
        assert str(path) in last_line


async def test_an_existing_queue_opens_and_can_be_read_while_the_file_is_locked(tmp_path: Path) -> None:
    await enqueue(tmp_path / "q.db")

    with locked(tmp_path / "q.db"):
        async with sqlite_queue(tmp_path / "q.db", busy_timeout="100ms") as queue:
            assert await eligible(queue) == ["a"]
            assert (await queue.counts()).queued == 1


async def test_a_file_that_stays_locked_cannot_be_made_a_queue_now(tmp_path: Path) -> None:
    with shell(tmp_path / "q.db") as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(StoreUnavailableError, match="locked"):
            await sqlite_queue(tmp_path / "q.db", busy_timeout="50ms").__aenter__()


async def test_many_processes_may_make_the_file_at_the_same_moment(tmp_path: Path) -> None:
    queues = [sqlite_queue(tmp_path / "q.db", name=f"q{number % 3}") for number in range(12)]

    await asyncio.gather(*[queue.__aenter__() for queue in queues])
    await asyncio.gather(*[queue.queue(f"key-{number}") for number, queue in enumerate(queues)])

    assert [len(await eligible(queue)) for queue in queues] == [4] * 12
    await asyncio.gather(*[queue.__aexit__() for queue in queues])


def test_a_file_that_another_process_makes_while_it_is_looked_at_is_a_queue_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = QueueFile(str(tmp_path / "q.db"))

    def connect_late(file: QueueFile, how: str) -> sqlite3.Connection:
        connection = connect(file, how)

        def traced(statement: str) -> None:
            if "sqlite_master" in statement:
                connection.set_trace_callback(None)
                monkeypatch.undo()
                open_queue_file(file, boot=0).connection.close()

        connection.set_trace_callback(traced)
        return connection

    monkeypatch.setattr(opening, "connect", connect_late)
    opened = open_queue_file(file, boot=0)
    opened.connection.close()

    assert opened.queue == 1


async def test_opening_can_be_cancelled(tmp_path: Path) -> None:
    threads = threading.active_count()
    with shell(tmp_path / "q.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        opening = asyncio.ensure_future(sqlite_queue(tmp_path / "q.db").__aenter__())
        await asyncio.wait({opening}, timeout=0.05)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        other.execute("ROLLBACK")

    await until(lambda: threading.active_count() <= threads)


async def enqueue(path: Path) -> None:
    async with sqlite_queue(path) as queue:
        await queue.queue("a")
