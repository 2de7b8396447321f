"""A SQLite queue on machines that are not perfect: rights, a /proc that hides things, directories that refuse fsync."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sqlite import eligible, lease, sqlite_queue
from workqueue.backends import open_queue
from workqueue.backends.sqlite import boot_id
from workqueue.backends.sqlite.holders import is_in_use
from workqueue.errors import InvalidSettingError, StoreUnavailableError, StoreUnusableError

BOOT = "6fd1b5bc-2b0c-4d6d-a1d3-56a1b5e2f3ab"


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def rights(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.parametrize("umask", [0o000, 0o022], indirect=True)
async def test_a_new_file_and_its_log_are_for_nobody_but_their_owner(tmp_path: Path, umask: None) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")

        assert rights(tmp_path) == {"q.db": 0o600, "q.db-wal": 0o600, "q.db-shm": 0o600}


@pytest.mark.parametrize("umask", [0o000, 0o077], indirect=True)
async def test_a_file_is_shared_by_a_group_that_is_let_in(tmp_path: Path, umask: None) -> None:
    async with sqlite_queue(tmp_path / "q.db", mode="0660") as queue:
        await queue.queue("a")

        assert rights(tmp_path) == {"q.db": 0o660, "q.db-wal": 0o660, "q.db-shm": 0o660}


async def test_a_file_that_is_there_keeps_its_rights(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db"):
        pass
    (tmp_path / "q.db").chmod(0o640)
    async with sqlite_queue(tmp_path / "q.db", mode="0660") as queue:
        await queue.queue("a")

        assert set(rights(tmp_path).values()) == {0o640}


@pytest.mark.parametrize("mode", ["600 ", "0066", "0o600", "rw", "0400", "1600", "", "0680"])
def test_rights_that_make_no_sense_are_refused(mode: str) -> None:
    with pytest.raises(InvalidSettingError, match="mode="):
        open_queue(f"sqlite:///q.db?mode={mode}")


@pytest.mark.parametrize("path", ["a%00b.db", "%00", "/tmp/a%00"])
def test_a_path_with_a_nul_is_refused(path: str) -> None:
    with pytest.raises(InvalidSettingError, match="names no file"):
        open_queue(f"sqlite:///{path}")


@pytest.mark.parametrize("content", [None, "", "\n", "not a uuid\n", "00000000-0000-0000-0000-000000000000\n"])
async def test_a_boot_that_cannot_be_told_from_others_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    monkeypatch.setattr(boot_id, "_LINUX", tmp_path / "boot_id")
    if content is not None:
        (tmp_path / "boot_id").write_text(content)

    with pytest.raises(StoreUnusableError, match=r"boot.*boot_id=%b"):
        await sqlite_queue(tmp_path / "q.db").__aenter__()

    assert not (tmp_path / "q.db").exists()


async def test_a_queue_is_looked_at_where_the_boot_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        await lease(queue)
        monkeypatch.setattr(boot_id, "_LINUX", tmp_path / "hidden")

        async with sqlite_queue(tmp_path / "q.db", read_only="true") as looking:
            (running,) = (await looking.enumerate()).in_progress
            assert (running.key, running.orphaned) == ("a", False)
            assert (await looking.counts()).in_progress == 1


@pytest.mark.parametrize("spelling", [BOOT, BOOT.replace("-", "")])
async def test_a_boot_that_is_named_in_the_url_is_the_one_that_the_kernel_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    (tmp_path / "boot_id").write_text(f"{BOOT}\n")
    monkeypatch.setattr(boot_id, "_LINUX", tmp_path / "boot_id")
    async with sqlite_queue(tmp_path / "q.db") as seeing:
        await seeing.queue("a")
        await lease(seeing)
        monkeypatch.setattr(boot_id, "_LINUX", tmp_path / "hidden")

        async with sqlite_queue(tmp_path / "q.db", boot_id=spelling) as told:
            assert [key.orphaned for key in (await told.enumerate()).in_progress] == [False]
            assert (await lease(told)).recovered == []


@pytest.mark.parametrize("text", ["", "1", "00000000000000000000000000000000"])
def test_a_boot_that_is_no_uuid_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettingError, match="boot_id="):
        open_queue(f"sqlite:///q.db?boot_id={text}")


@pytest.mark.parametrize("call", ["fsync", "open"])
async def test_a_directory_that_refuses_fsync_is_logged_and_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    works = getattr(os, call)

    def refused(what: str | int, *args: int) -> int | None:
        if (isinstance(what, int) or Path(what).exists()) and stat.S_ISDIR(os.stat(what).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        answer: int | None = works(what, *args)
        return answer

    monkeypatch.setattr(os, call, refused)
    with caplog.at_level(logging.WARNING):
        async with sqlite_queue(tmp_path / "q.db") as queue:
            await queue.queue("a")
            assert await eligible(queue) == ["a"]

    assert [record.getMessage() for record in caplog.records if "cannot be synced" in record.getMessage()]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EMFILE, errno.EDQUOT])
async def test_trouble_that_may_pass_while_the_file_is_made_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    works = os.open

    def refused(path: str, *args: int) -> int:
        if str(path).endswith("q.db"):
            raise OSError(number, os.strerror(number))
        return works(path, *args)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(StoreUnavailableError, match="cannot be made now"):
        await sqlite_queue(tmp_path / "q.db").__aenter__()


async def test_a_file_system_that_knows_no_rights_is_logged_and_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(descriptor: int, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", refused)
    with caplog.at_level(logging.WARNING):
        async with sqlite_queue(tmp_path / "q.db") as queue:
            await queue.queue("a")

    assert ["rights of" in record.getMessage() for record in caplog.records] == [True]


async def test_a_log_that_cannot_be_opened_now_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works = os.open

    def refused(path: str, *args: int) -> int:
        if str(path).endswith("-wal"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return works(path, *args)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(StoreUnavailableError, match=r"q.db-wal cannot be opened"):
        await sqlite_queue(tmp_path / "q.db").__aenter__()


@pytest.mark.parametrize("call", ["statvfs", "pread"])
async def test_a_disk_that_cannot_be_asked_hinders_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refused(*args: object) -> object:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, refused)
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")

        assert await eligible(queue) == ["a"]


async def test_without_proc_a_file_that_somebody_has_open_is_still_known_to_be_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: str) -> list[str]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(os, "listdir", refused)
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        assert is_in_use(str(tmp_path / "q.db"))

    assert not is_in_use(str(tmp_path / "q.db"))
