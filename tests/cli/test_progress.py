"""Long work shows how far it has come, to a person at a terminal and to nobody else."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import python, ran
from workqueue import Options, open_queue
from workqueue.optional import LeaseRequest

MANY = 300
PROGRAM = f"{sys.executable} -m workqueue.cli"


async def given_up(url: str, keys: int) -> None:
    async with open_queue(url) as queue:
        await queue.queue_many([(f"{number}", Options()) for number in range(keys)])
        started = (await queue.lease(LeaseRequest(keys, keys))).started
        await asyncio.gather(*[owned.dead_letter("no") for owned in started])


def at_a_terminal(line: str, term: str = "xterm") -> Any:
    command = ["tests/support/terminal.py", "[]", "/bin/sh", "-c", line]
    return python(*command, env={"TERM": term, "COLUMNS": None}).json


def test_a_redrive_shows_how_many_of_how_many_it_has_done(url: str) -> None:
    asyncio.run(given_up(url, MANY))

    ended = at_a_terminal(f"{PROGRAM} dead-letters redrive --all --queue {url}")

    assert f"{MANY}/{MANY}" in ended["output"]
    assert ended["output"].endswith(f"redriven {MANY}\r\n")
    assert ended["code"] == 0


def test_keys_from_a_pipe_are_counted_as_they_are_stored(url: str) -> None:
    ended = at_a_terminal(f"seq 1 {MANY} | {PROGRAM} enqueue --stdin --queue {url}")

    assert f"{MANY}/?" in ended["output"]
    assert ended["output"].endswith(f"enqueued {MANY}\r\n")


def test_what_a_program_reads_has_no_bar_in_it_even_if_somebody_watches(url: str, tmp_path: Path) -> None:
    asyncio.run(given_up(url, MANY))

    ended = at_a_terminal(f"{PROGRAM} dead-letters redrive --all --json --queue {url} > {tmp_path}/out")

    assert f"{MANY}/{MANY}" in ended["output"]
    assert len(json.loads((tmp_path / "out").read_text())["redriven"]) == MANY


def test_conformance_shows_how_far_it_has_come() -> None:
    ended = at_a_terminal(f"{PROGRAM} conformance memory://")

    assert "scenarios run" in ended["output"]
    assert " passed" in ended["output"].splitlines()[-1]


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_can_only_print_gets_no_bar(url: str, term: str) -> None:
    asyncio.run(given_up(url, MANY))

    assert at_a_terminal(f"{PROGRAM} dead-letters redrive --all --queue {url}", term)["output"] == (
        f"redriven {MANY}\r\n"
    )


def test_a_few_keys_need_no_bar(url: str) -> None:
    assert at_a_terminal(f"{PROGRAM} enqueue a b --queue {url}")["output"] == "enqueued 2\r\n"


def test_where_nobody_watches_nothing_is_written_beside_the_result(url: str) -> None:
    asyncio.run(given_up(url, MANY))

    ended = ran([sys.executable, "-m", "workqueue.cli", "dead-letters", "redrive", "--all", "--queue", url])

    assert (ended.out, ended.err) == (f"redriven {MANY}\n", "")
