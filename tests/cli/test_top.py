"""`workqueue top`: what it shows, on terminals of any size and where there is none, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import dispatcher
from dispatcher import Attempt
from tests.support.dispatching import memory
from tests.support.processes import Ended, python, started
from tests.support.programs import workqueue
from workqueue import Options, open_queue
from workqueue.access.security import ClientSecurity
from workqueue.cli.dispatchers import AskedDispatcher, Dispatchers
from workqueue.cli.top.picture import Row, View, picture
from workqueue.errors import InvalidSettingError
from workqueue.optional import Counts, LeaseRequest
from workqueue.telemetry.standing import Standing
from workqueue.throttle import Configuration
from workqueue.web.server import http_server

NOW = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)
LEAVE_SCREEN, SHOW_CURSOR = "\x1b[?1049l", "\x1b[?25h"
LONG = Row("customer/" + "x" * 200, "in progress", 3, timedelta(seconds=12), "pod-1", "boom " * 40)
ROWS = [LONG, *(Row(f"key-{number}", "queued", 0, timedelta(0)) for number in range(50))]


async def filled(url: str) -> None:
    async with open_queue(url, owner="pod-1") as queue:
        await queue.queue("busy")
        [owned] = (await queue.lease(LeaseRequest(1, 1))).started
        await queue.queue_many([("next", Options()), ("later", Options(not_before=NOW + timedelta(days=9999)))])
        await queue.queue("given-up", Options(priority=9))
        [doomed] = (await queue.lease(LeaseRequest(1, 2))).started
        await doomed.dead_letter("out of disk")
        owned.abandon()


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/workqueue.db?name=builds"
    asyncio.run(filled(url))
    return url


def run(url: str, *args: str) -> Ended:
    return workqueue("top", *args, env={"WORKQUEUE_URL": url})


def at_a_terminal(url: str, *steps: list[object]) -> Any:
    """What becomes of `workqueue top` when somebody does `steps`, whose shell exports another size."""
    command = [sys.executable, "-m", "workqueue.cli", "top", "--every", "100ms", "--queue", url]
    ended = python(
        "tests/support/terminal.py", json.dumps(steps), *command, env={"TERM": "xterm", "COLUMNS": "90", "LINES": "24"}
    )
    return ended.json


def test_once_shows_keys_by_where_they_are_and_how_many_there_are(url: str) -> None:
    lines = run(url, "--once").out.splitlines()

    assert lines[0].startswith("builds  ")
    assert lines[1] == "queued 1  delayed 1  in progress 1  dead-lettered 1  twins 0"
    table = [line.split() for line in lines[5:]]
    assert [(row[0], row[1]) for row in table] == [
        ("busy", "in"), ("next", "queued"), ("later", "starts"), ("given-up", "dead-lettered"),
    ]  # fmt: skip
    assert "pod-1" in lines[5]
    assert lines[-1].endswith("out of disk")


def test_once_fits_the_terminal_that_it_is_typed_in(url: str) -> None:
    line = f"stty cols 40; {sys.executable} -m workqueue.cli top --once --queue {url}"

    ended = python("tests/support/terminal.py", "[]", "/bin/sh", "-c", line, env={"TERM": "xterm"}).json

    lines = ended["output"].splitlines()
    assert (ended["code"], lines[5].split()[0]) == (0, "busy")
    assert [line for line in lines if len(line) > 40] == []


def test_a_queue_that_is_paused_is_shown_as_that(url: str) -> None:
    workqueue("pause", env={"WORKQUEUE_URL": url})

    assert "paused: no key starts until `workqueue resume`" in run(url, "--once").out


def test_where_there_is_no_terminal_one_text_follows_the_other_until_a_signal(url: str) -> None:
    command = [sys.executable, "-m", "workqueue.cli", "top", "--every", "10ms", "--queue", url]
    with started(command) as it:
        said = [it.said() for _ in range(30)]
        it.send_signal(signal.SIGINT)
        code = it.wait(timeout=60)

    assert sum(line.startswith("busy") for line in said) >= 2
    assert not any("\x1b" in line for line in said)
    assert code == 0


@pytest.mark.parametrize(
    "url", ["", "ftp://host", "http://", "http://host:99999", "http://a..b", "http://[::1", "http://a\\b"]
)
def test_what_is_no_url_of_a_dispatcher_is_refused(url: str) -> None:
    with pytest.raises(InvalidSettingError, match="no URL of a dispatcher"):
        AskedDispatcher(url, ClientSecurity())


@pytest.mark.parametrize("end", [["type", "q"], ["type", "\x03"], ["signal", int(signal.SIGTERM)]])
def test_a_terminal_is_left_as_it_was_however_it_ends(url: str, end: list[object]) -> None:
    ended = at_a_terminal(url, ["see", "busy"], end)

    assert (ended["code"], ended["echoes"]) == (0, True)
    assert LEAVE_SCREEN in ended["output"]
    assert SHOW_CURSOR in ended["output"]
    assert "Traceback" not in ended["output"]


def test_a_terminal_that_becomes_narrow_gets_a_picture_that_fits(url: str) -> None:
    ended = at_a_terminal(
        url, ["size", 30, 100], ["see", "out of disk"], ["size", 6, 24], ["see", "more lines"], ["type", "q"]
    )

    assert ended["code"] == 0


@pytest.mark.parametrize("width", [1, 2, 10, 24, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("height", [1, 3, 10, 100])
def test_no_picture_is_larger_than_its_terminal(width: int, height: int) -> None:
    wide = Row("日本語/" * 30, "orphaned", 12, timedelta(days=3), "東京", "失敗" * 30)
    said = [Standing("http://10.0.0.7:8091", 3, 10, timedelta(hours=3), {"completed": 12.3}, ["the target is down"])]

    lines = picture(View("builds", NOW, rows=[wide, *ROWS], standings=said), width, height)

    assert len(lines) <= height
    assert max(cell_len(line.text) for line in lines) <= width


def test_what_a_picture_leaves_out_is_counted() -> None:
    lines = picture(View("builds", NOW, rows=ROWS), 80, 20)

    assert len(lines) == 20
    assert lines[-1].text == "… 37 more lines: a higher terminal shows them"


def test_on_a_narrow_terminal_errors_owners_and_times_give_way_to_keys() -> None:
    header = [picture(View("builds", NOW, rows=ROWS), width)[4].text.split() for width in (100, 60, 40, 30, 17)]

    assert header == [
        ["KEY", "STATE", "TRY", "FOR", "OWNER", "LAST", "ERROR"],
        ["KEY", "STATE", "TRY", "FOR", "OWNER"],
        ["KEY", "STATE", "TRY"],
        ["KEY", "STATE"],
        ["KEY"],
    ]


def test_control_characters_of_keys_and_errors_reach_no_terminal() -> None:
    row = Row("a\x1b[2Jb", "queued", 0, None, "o\x1b", "e\x1b]0;title\x07")

    text = "\n".join(line.text for line in picture(View("n\x1b", NOW, rows=[row])))

    assert "\x1b" not in text
    assert r"a\x1b[2Jb" in text


def test_a_store_that_fails_is_said_and_hides_no_dispatcher() -> None:
    said = [Standing("http://a", 1, 5, timedelta(seconds=9), {"completed": 2.0})]

    lines = [line.text for line in picture(View("builds", NOW, standings=said, trouble="StoreUnavailableError: no"))]

    assert lines[1:] == ["StoreUnavailableError: no", "http://a  up 9.0 s  running 1 of 5  completed 2.0/s"]


def test_limits_stored_with_the_queue_are_shown() -> None:
    view = View("builds", NOW, Counts(queued=1234), Configuration(3, starts_per_second=0.5))

    text = "\n".join(line.text for line in picture(view))

    assert "queued 1,234" in text
    assert "concurrency 3  starts per second 0.5" in text


async def standing_of(app: Any, path: str = "") -> Standing:
    async with http_server(app, "127.0.0.1", 0) as port:
        asked = AskedDispatcher(f"http://127.0.0.1:{port}{path}", ClientSecurity())
        async with Dispatchers([asked]) as dispatchers:
            [standing] = await dispatchers.standings()
            return standing


async def test_what_a_dispatcher_knows_is_asked_of_it() -> None:
    async def nothing(key: str, attempt: Attempt) -> None: ...

    standing = await standing_of(dispatcher.handler(memory(), callback=nothing, concurrency=7))

    assert (standing.running, standing.limit, standing.troubles) == (0, 7, [])
    assert standing.uptime is not None


async def test_somebody_else_at_that_address_is_no_dispatcher() -> None:
    async def other(request: Any) -> PlainTextResponse:
        return PlainTextResponse('{"up": true}', media_type="application/json")

    standing = await standing_of(Starlette(routes=[Route("/status", other)]))

    assert standing.troubles == ["it does not answer as a dispatcher does"]


async def test_a_dispatcher_that_is_not_there_or_refuses_is_a_trouble_not_an_end() -> None:
    refused = await standing_of(Starlette())
    async with Dispatchers([AskedDispatcher("http://127.0.0.1:1", ClientSecurity())]) as gone:
        [absent] = await gone.standings()

    assert "404" in refused.troubles[0]
    assert "127.0.0.1" in absent.troubles[0]


def test_once_shows_what_a_dispatcher_says_beside_the_queue(url: str) -> None:
    ended = run(url, "--once", "--dispatcher", "http://127.0.0.1:1")

    assert "http://127.0.0.1:1\n  ClientConnectorError" in ended.out
    assert "busy" in ended.out


@pytest.mark.parametrize("address", ["127.0.0.1:8091", "ftp://a", "http://"])
def test_what_is_no_address_of_a_dispatcher_is_refused_in_one_line(url: str, address: str) -> None:
    ended = run(url, "--once", "--dispatcher", address)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("workqueue: --dispatcher: ")
    assert os.linesep not in ended.err.strip()
