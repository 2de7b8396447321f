"""Files that somebody replaces while they are used: tokens, and whatever else is made of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.grpc import on_loop
from workqueue.access.files import Followed
from workqueue.access.tokens import ListedTokens, TokenFile, TokenRefusedError
from workqueue.errors import InvalidSettingError


def number_in(path: Path) -> int:
    try:
        return int(path.read_text())
    except ValueError as error:
        raise InvalidSettingError(f"{path.name} holds no number") from error


def followed(path: Path) -> Followed[int]:
    path.write_text("1")
    return Followed([path], lambda: number_in(path), "number")


def age(path: Path) -> None:
    """Let `path` look as if it had been written long ago."""
    os.utime(path, (1_000_000, 1_000_000))


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    number = followed(tmp_path / "file")
    assert number.current() == 1

    (tmp_path / "file").write_text("2")

    assert number.current() == 2


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    path, reads = tmp_path / "file", []
    path.write_text("1")
    age(path)
    content = Followed([path], lambda: reads.append(path), "nothing")

    for _ in range(3):
        content.current()

    assert len(reads) == 1


def test_what_is_made_of_a_new_file_stays_the_same_until_it_says_something_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    made = Followed([path], object, "object")
    first = made.current()

    path.write_text("1")
    assert made.current() is first
    path.write_text("2")
    assert made.current() is not first


def test_a_file_that_was_replaced_by_one_of_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_text("1")
    other.write_text("2")
    age(path)
    age(other)
    number = Followed([path], lambda: number_in(path), "number")

    other.rename(path)

    assert number.current() == 2


def test_a_file_that_changed_again_before_its_clock_ticked_is_read_again(tmp_path: Path) -> None:
    number = followed(tmp_path / "file")
    written = (tmp_path / "file").stat().st_mtime_ns

    (tmp_path / "file").write_text("2")
    os.utime(tmp_path / "file", ns=(written, written))

    assert number.current() == 2


def test_a_link_that_points_elsewhere_is_followed(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "link"
    link.symlink_to("1")
    number = Followed([link], lambda: number_in(link), "number")

    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(link)

    assert number.current() == 2


@pytest.mark.parametrize("broken", ["", "nonsense", None], ids=["empty", "nonsense", "gone"])
def test_what_makes_no_sense_is_said_once_and_the_old_goes_on(
    broken: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    number = followed(path)
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)

    assert [number.current() for _ in range(3)] == [1, 1, 1]
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["still using the previous number"]
    path.write_text("2")
    assert number.current() == 2


def test_what_makes_no_sense_from_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Followed([tmp_path / "file"], lambda: number_in(tmp_path / "file"), "number")


@on_loop
async def test_a_list_of_accepted_tokens_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("one\n\n  two  \n")
    tokens = ListedTokens(path)
    await tokens.verify("one")
    await tokens.verify("two")

    path.write_text("three")

    await tokens.verify("three")
    with pytest.raises(TokenRefusedError):
        await tokens.verify("one")


@on_loop
async def test_a_token_to_send_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    source = TokenFile(path)
    path.write_text("second\n")
    assert await source.token() == "second"

    path.unlink()

    assert await source.token() == "second"
