"""Programs as handlers: what they get on stdin, what their exit codes become, and how they are ended."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest

import dispatcher
from dispatcher import Dispatcher, DispatcherSettings, command_callback
from dispatcher.targets.command import EX_DATAERR, EX_TEMPFAIL, CommandCallback
from tests.support.dispatching import Recorder, clock_of, dead_letters, memory, state, states, until
from workqueue import Options
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import InvalidSettingError

SECOND = timedelta(seconds=1)


def python(program: str, *arguments: str) -> CommandCallback:
    return command_callback(sys.executable, "-c", program, *arguments)


async def queued(key: str = "a", options: Options = Options()) -> MemoryQueue:
    queue = memory()
    await queue.queue(key, options)
    return queue


async def test_a_program_gets_the_key_as_json_on_its_stdin(tmp_path: Path) -> None:
    queue = await queued("café/1", Options(priority=7, payload=b"text", meta={"who": "me"}))
    seen = tmp_path / "seen"

    copy = python("import sys; open(sys.argv[1], 'w').write(sys.stdin.read())", str(seen))
    await dispatcher.handle(queue, callback=copy)

    document = json.loads(seen.read_text())
    assert (document["key"], document["attempts"], document["priority"]) == ("café/1", 1, 7)
    assert (document["payload"], document["meta"]) == ("text", {"who": "me"})
    assert await states(queue, "café/1") == {"café/1": "UNKNOWN"}


@pytest.mark.parametrize(
    ("code", "action", "told"),
    [
        (0, [], ""),
        (75, ["requeued"], "exited with 75: out of disk"),
        (1, ["requeued"], "exited with 1: out of disk"),
        (65, ["dropped"], "exited with 65: out of disk"),
    ],
)
async def test_an_exit_code_becomes_an_outcome(code: int, action: list[str], told: str) -> None:
    queue, events = await queued(), Recorder()

    failing = python(f"import sys; print('out of disk', file=sys.stderr); sys.exit({code})")
    await dispatcher.handle(queue, callback=failing, errors=events)

    assert [event.failure.action for event in events.events] == action
    assert all(told in event.failure.error for event in events.events)


async def test_a_program_that_is_killed_has_failed() -> None:
    queue = await queued()

    await dispatcher.handle(queue, callback=python("import os; os.kill(os.getpid(), 9)"), max_retry=1)

    assert await dead_letters(queue) == {"a": "HandlerFailedError: the command was killed by SIGKILL"}


async def test_a_program_need_not_read_what_it_is_given() -> None:
    queue = await queued(options=Options(payload=b"x" * 200_000))

    await dispatcher.handle(queue, callback=python("pass"))

    assert await states(queue, "a") == {"a": "UNKNOWN"}


async def test_of_very_much_on_stderr_only_the_end_is_kept() -> None:
    queue = await queued()
    chatty = "import sys; sys.stderr.write('noise\\n' * 1_000_000 + 'the real reason'); sys.exit(75)"

    await dispatcher.handle(queue, callback=python(chatty), max_retry=1)

    error = (await dead_letters(queue))["a"]
    assert error.endswith("the real reason")
    assert len(error) < 1200


RUNNING = """
import os, signal, subprocess, sys, time
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1] + ".part", "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""


def alive(pid: int) -> bool:
    """Whether a process still runs; one that has ended and whom nobody has asked for its exit code does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("kind", ["obedient", "stubborn"])
async def test_a_program_that_runs_too_long_is_ended_with_everything_that_it_started(kind: str, tmp_path: Path) -> None:
    queue, pids, events = await queued(), tmp_path / "pids", Recorder()
    clock = clock_of(queue)
    callback = command_callback(sys.executable, "-c", RUNNING, str(pids), kind, clock=clock)
    settings = DispatcherSettings(max_run_time=timedelta(minutes=1))

    async with Dispatcher(queue, callback, settings, errors=events) as running:
        await until(pids.exists)
        while running.metrics.outcomes["retried"] == 0:
            clock.advance(SECOND)
            await asyncio.sleep(0.01)

    assert events.events[0].failure.error.startswith("TimeoutError")
    await until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))


async def test_a_dispatcher_that_stops_ends_its_programs_and_hands_their_keys_back(tmp_path: Path) -> None:
    queue, pids = await queued(), tmp_path / "pids"
    callback = python(RUNNING, str(pids), "obedient")

    async with Dispatcher(queue, callback) as running:
        await until(pids.exists)
        running.stop()

    assert (await state(queue, "a")).attempts == 0
    await until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))


async def test_ctrl_c_reaches_the_dispatcher_alone(tmp_path: Path) -> None:
    queue, seen = await queued(), tmp_path / "group"

    await dispatcher.handle(
        queue, callback=python("import os, sys; open(sys.argv[1], 'w').write(str(os.getpgrp()))", str(seen))
    )

    assert int(seen.read_text()) != os.getpgrp()


async def test_a_program_that_is_gone_spends_no_attempt(tmp_path: Path) -> None:
    program = tmp_path / "handle"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    callback = command_callback(str(program))
    program.unlink()
    queue = await queued()

    async with Dispatcher(queue, callback) as running:
        await until(lambda: running.metrics.outcomes["released"] > 0)
        running.stop()

    assert (await state(queue, "a")).attempts == 0


@pytest.mark.parametrize("command", [(), ("no-such-program-anywhere",), ("/etc/passwd",)], ids=str)
def test_what_cannot_be_run_is_refused(command: tuple[str, ...]) -> None:
    with pytest.raises(InvalidSettingError, match="no command that can be run"):
        command_callback(*command)


def test_the_codes_are_those_of_sysexits() -> None:
    assert (os.EX_DATAERR, os.EX_TEMPFAIL) == (EX_DATAERR, EX_TEMPFAIL)
