"""Log lines that nobody can forge: whatever an error says, a record is one line, and a traceback is indented."""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.processes import python
from tests.support.programs import Server, serving, workqueue
from tests.support.tls import Authority
from workqueue.programs.logs import JSONFormatter, TextFormatter

FORGED = "no luck\n2026-11-27 00:00:00,000 ERROR   dispatcher.loop: forged\x1b[2J\u202e"


def record(message: str, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("a.logger", logging.ERROR, __file__, 1, "it failed: %s", (message,), info)


def raised(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_an_error_text_begins_no_line_of_its_own_and_moves_no_cursor() -> None:
    line = TextFormatter("%(levelname)s %(name)s: %(message)s").format(record(FORGED))

    assert line == "ERROR a.logger: it failed: " + FORGED.replace("\n", r"\n").replace("\x1b", r"\x1b").replace(
        "\u202e", r"\u202e"
    )


def test_every_line_of_a_traceback_is_indented_and_harmless() -> None:
    first, *rest = TextFormatter("%(message)s").format(record("see below", raised(FORGED))).split("\n")

    assert first == "it failed: see below"
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)
    assert any("ValueError: no luck" in line for line in rest)


def test_colours_are_ours_alone_and_those_of_an_error_text_are_escaped() -> None:
    first, *_, last = TextFormatter("%(message)s", colour=True).format(record(FORGED, raised(FORGED))).split("\n")

    for line in (first, last):
        assert line.startswith("\x1b[31m")
        assert line.endswith("\x1b[0m")
        assert line.count("\x1b") == 2


@pytest.mark.parametrize(("level", "begins"), [("INFO", "it"), ("WARNING", "\x1b[33mit"), ("CRITICAL", "\x1b[31mit")])
def test_a_decision_is_plain_a_warning_yellow_an_error_red(level: str, begins: str) -> None:
    logged = record("no")
    logged.levelno = logging.getLevelNamesMapping()[level]

    assert TextFormatter("%(message)s", colour=True).format(logged).startswith(begins)


@pytest.mark.parametrize(
    ("env", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=["", "no", "dumb"]
)
def test_errors_are_in_colour_on_a_terminal_that_has_colours(
    tmp_path: Path, env: dict[str, str], is_coloured: bool
) -> None:
    url = f"sqlite:///{tmp_path}/q.db"
    workqueue("enqueue", "a", "--queue", url)
    once = [sys.executable, "-m", "dispatcher.cli", "run", "--once", "--queue", url]
    failing = [*once, "--callback", "tests.support.reconcilers:fail"]

    ended = python("tests/support/terminal.py", "[]", *failing, env={"TERM": "xterm", "NO_COLOR": None, **env}).json

    assert "ValueError: no good: a" in ended["output"]
    assert ("\x1b[33m" in ended["output"]) == is_coloured


@pytest.mark.parametrize("text", [FORGED, "\ud800", "\u2028"], ids=["forged", "surrogate", "separator"])
def test_a_json_record_is_one_line_whatever_it_says(text: str) -> None:
    line = JSONFormatter().format(record(text, raised(text)))

    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["message"] == f"it failed: {text}"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Server]:
    pair = Authority(tmp_path).issue("127.0.0.1")
    tls = ["--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)]
    ports = ["--grpc-port", "0", "--http-port", "0"]
    store = f"sqlite:///{tmp_path}/q.db"
    # gRPC is to be silenced before it is imported.
    with serving("workqueue.cli", "receive", "--queue", store, *ports, *tls, new=True) as it:
        yield it


def shout(port: int) -> None:
    """Everything that is no handshake of ours."""
    for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", os.urandom(300)):
        with socket.create_connection(("127.0.0.1", port), 10) as connection, suppress(OSError):
            connection.sendall(noise)
    with socket.create_connection(("127.0.0.1", port), 10) as connection, suppress(OSError):
        ssl.create_default_context().wrap_socket(connection, server_hostname="127.0.0.1").close()


def test_strangers_who_fail_at_tls_leave_the_log_of_both_ports_json(receiver: Server) -> None:
    http, grpc = receiver.port("health and metrics on"), receiver.port("listening on")

    shout(http)
    shout(grpc)

    receiver.tell()
    assert receiver.ended() == 0, receiver.lines
    messages = [json.loads(line)["message"] for line in receiver.lines]
    assert len(messages) == 3, messages


def test_what_a_receiver_says_cannot_move_the_cursor_of_who_asks(tmp_path: Path) -> None:
    ended = workqueue("get", "k", "--queue", f"sqlite:///{tmp_path}/\x1b[2J\u202e/no.db")

    assert ended.code != 0
    assert ended.err.rstrip("\n").isprintable()
