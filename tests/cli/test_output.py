"""Output that cannot be written, input that cannot be read: one line each, and an exit code that says what was done."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.support.forked import forked
from tests.support.processes import REPOSITORY, Ended, ran
from tests.support.programs import workqueue

PROGRAM = f"{sys.executable} -m workqueue.cli"


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/workqueue.db"
    workqueue("enqueue", "there", "--queue", url)
    return url


def shell(url: str, line: str, name: str = "bash") -> Ended:
    """One line of a shell, in which $W is the program."""
    environment = {"WORKQUEUE_URL": url, "W": PROGRAM, "PYTHONPATH": str(REPOSITORY)}
    return ran([name, "-c", line], env=environment)


def connected(url: str, command: str, *, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> Ended:
    """One command line of the program, with these streams."""
    with forked(["workqueue.cli", *command.split()], env={"WORKQUEUE_URL": url}, stdin=stdin, stdout=stdout) as it:
        return Ended(it.wait(timeout=60), "", it.err)


@pytest.fixture
def full() -> Iterator[IO[bytes]]:
    """An output with no room for anything."""
    with open("/dev/full", "wb") as it:
        yield it


@contextmanager
def left_by_its_reader() -> Iterator[IO[bytes]]:
    """The end of a pipe of which nobody has the other one any more."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as it:
        yield it


def keys(url: str) -> list[str]:
    return [row["key"] for row in workqueue("ls", "--json", "--queue", url).json["queued"]]


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("form", ["", "--json"])
def test_a_key_that_was_stored_exits_with_0_whatever_becomes_of_the_output(
    url: str, full: IO[bytes], form: str, is_closed: bool
) -> None:
    command = f"enqueue a {form}"
    ended = shell(url, f"$W {command} >&-") if is_closed else connected(url, command, stdout=full)

    assert ended.code == 0
    assert ended.err.startswith("it was done, but the output cannot be written: ")
    assert len(ended.err.splitlines()) == 1
    assert keys(url) == ["there", "a"]


@pytest.mark.parametrize(
    "command", ["drop there", "pause", "configure --concurrency 3", "schedules add s @daily --key k"]
)
def test_whatever_else_was_done_exits_with_0_too(url: str, full: IO[bytes], command: str) -> None:
    ended = connected(url, command, stdout=full)

    assert (ended.code, ended.err) == (
        0,
        "it was done, but the output cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize("command", ["ls", "ls --json", "get there", "schedules ls"])
def test_what_only_shows_fails_in_one_line_where_there_is_no_room(url: str, full: IO[bytes], command: str) -> None:
    ended = connected(url, command, stdout=full)

    assert (ended.code, ended.err) == (1, "workqueue: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize("command", ["ls", "stats", "dead-letters ls"])
def test_what_only_shows_fails_in_one_line_where_the_output_is_closed(url: str, command: str) -> None:
    ended = shell(url, f"$W {command} >&-")

    assert ended.code == 1
    assert ended.err.startswith("workqueue: the output cannot be written: ")
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["--help", "--version", "ls -h"])
def test_help_that_cannot_be_written_is_one_line(url: str, full: IO[bytes], command: str) -> None:
    ended = connected(url, command, stdout=full)

    assert (ended.code, ended.err) == (
        1,
        "workqueue: the output cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize("command", ["ls", "ls --json", "enqueue a", "--help"])
def test_a_reader_that_has_seen_enough_is_no_error(url: str, command: str) -> None:
    with left_by_its_reader() as output:
        ended = connected(url, command, stdout=output)

    assert ended.err == ""
    assert ended.code in (0, 1 if command == "--help" else 0)


@pytest.mark.parametrize("output", ["2>&-", "2> /dev/full"])
def test_an_exit_code_is_the_same_when_there_is_nowhere_to_say_why(url: str, output: str) -> None:
    assert shell(url, f"$W enqueue '' {output}").code == 2
    assert shell(url, f"$W get nobody {output}").code == 1
    assert shell(url, f"$W drop nobody {output}").code == 1


def test_no_file_gets_the_number_of_a_stream_that_is_closed(url: str) -> None:
    open_ = "import os; os.closerange(0, 3); from workqueue.programs.streams import fill_closed_streams as fill; fill()"
    ended = shell(url, f'{sys.executable} -c "{open_}; os._exit(os.open(os.devnull, os.O_RDONLY))"')

    assert ended.code >= 3


@pytest.mark.parametrize("is_closed", [True, False])
def test_stdin_that_cannot_be_read_is_one_line(url: str, full: IO[bytes], is_closed: bool) -> None:
    command = "enqueue --stdin"
    ended = shell(url, f"$W {command} <&-") if is_closed else connected(url, command, stdin=full)

    assert ended.code == 2
    assert ended.err.startswith("workqueue: --stdin: stdin ")
    assert len(ended.err.splitlines()) == 1


def test_a_mark_of_byte_order_is_no_part_of_the_first_key(url: str) -> None:
    ended = workqueue("enqueue", "--stdin", "--queue", url, stdin=b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n")

    assert ended.code == 0
    assert keys(url) == ["there", "a", "\ufeffb"]


def test_a_payload_that_is_no_text_is_kept_as_it_is(url: str) -> None:
    assert workqueue("enqueue", "a", "--payload", os.fsdecode(b"\xff\x00x"[:1]), "--queue", url).code == 0

    assert workqueue("get", "a", "--json", "--queue", url).json["payload_base64"] == "/w=="


@pytest.mark.parametrize("delay", ["99999999d", "3000000d"])
def test_a_delay_beyond_the_calendar_is_refused(url: str, delay: str) -> None:
    ended = workqueue("enqueue", "a", "--delay", delay, "--queue", url)

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "--delay" in ended.err


@pytest.mark.parametrize("place", ["../mine:f", ".mine:f", "..:f", "mine..x:f"])
@pytest.mark.parametrize("command", ["conformance {}", "resync --once --keys {}"])
def test_a_module_that_is_named_like_a_path_is_refused(url: str, place: str, command: str) -> None:
    ended = (
        workqueue(*command.format(place).split(), "--queue", url)
        if "resync" in command
        else workqueue(*command.format(place).split())
    )

    assert (ended.code, ended.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("command", ["ls", "enqueue a", "stats"])
def test_a_working_directory_that_is_gone_is_one_line(url: str, tmp_path: Path, command: str) -> None:
    ended = shell("", f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir ../gone; unset WORKQUEUE_URL; $W {command}")

    assert ended.code == 2
    assert "working directory is gone" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("place", ["/dev/null", "/dev/full", "/tmp", "/"])
def test_what_is_no_file_is_refused(place: str) -> None:
    for command in ("enqueue", "get"):
        ended = workqueue(command, "a", "--queue", f"sqlite:///{place}")

        assert (ended.code, ended.err) == (1, f"workqueue: {place} is no file; name one\n")


@pytest.mark.parametrize("args", [("-h",), ("enqueue", "-h"), ("dead-letters", "-h"), ("schedules", "add", "-h")])
def test_help_has_a_short_name(args: tuple[str, ...]) -> None:
    assert workqueue(*args).out.startswith("Usage: workqueue")
