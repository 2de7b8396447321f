"""A program that was forked cannot see it, and ends and is ended as any process."""

from __future__ import annotations

import signal
from tempfile import TemporaryFile
from typing import Any

import pytest

from tests.support.forked import forked
from tests.support.processes import Ended, python

MODULE = "tests.support.executed"
SEEN = """
import json, os, signal, sys, threading, warnings
numbers = sorted(signal.valid_signals())
handlers = {number: repr(signal.getsignal(number)).split(" at ")[0] for number in numbers}
print(json.dumps({
    "arguments": sys.argv,
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "group": os.getpgrp(),
    "handlers": handlers,
    "input": sys.stdin.read(),
    "main": sys.modules["__main__"].__spec__.name,
    "open": [each for each in range(100) if os.path.exists(f"/dev/fd/{each}")],
    "path": sys.path,
    "threads": threading.active_count(),
    "warnings": [each[0] for each in warnings.filters],
}))
"""
LEAVES_OPEN = "import builtins, os; builtins.kept = open(os.devnull)"
WAITS = "import signal, sys; print('waits', file=sys.stderr, flush=True); signal.pause()"


def ran_forked(code: str, **how: Any) -> Ended:
    with TemporaryFile() as given, TemporaryFile() as out:
        with forked([MODULE, code, "--flag", "a b"], stdin=given, stdout=out, **how) as it:
            ended = it.wait(timeout=60)
        out.seek(0)
        return Ended(ended, out.read().decode(), it.err)


def test_a_program_that_is_forked_sees_what_one_sees_that_is_started() -> None:
    env = {"WORKQUEUE_URL": "memory://x", "HOME": None}

    seen = ran_forked(SEEN, env=env).json

    assert seen == python("-m", MODULE, SEEN, "--flag", "a b", env=env).json


@pytest.mark.parametrize("code", ["0", "3", "'a reason'"])
def test_it_exits_with_the_code_of_its_program(code: str) -> None:
    program = f"import sys; sys.exit({code})"

    assert ran_forked(program) == python("-m", MODULE, program)


def test_it_ends_by_what_its_program_raises() -> None:
    assert ran_forked("raise ValueError('of mine')", complains=True).code == 1


def test_what_it_leaves_open_to_its_very_end_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="ResourceWarning: unclosed file"):
        ran_forked(LEAVES_OPEN)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_it_and_is_its_exit_code(number: signal.Signals) -> None:
    with forked([MODULE, WAITS]) as it:
        it.logged("waits")
        assert it.poll() is None
        it.send_signal(number)

        assert it.wait(timeout=60) == -number


def test_ctrl_c_interrupts_it() -> None:
    with forked([MODULE, WAITS], complains=True) as it:
        it.logged("waits")
        it.send_signal(signal.SIGINT)

        it.wait(timeout=60)
        assert "KeyboardInterrupt" in it.err


def test_it_does_not_outlive_its_block() -> None:
    with forked([MODULE, WAITS]) as it:
        it.logged("waits")

    assert it.poll() == -signal.SIGKILL


def test_programs_run_beside_each_other_and_know_nothing_of_each_other() -> None:
    random = "import os, random, uuid; print(os.getpid(), random.random(), uuid.uuid4())"
    with forked([MODULE, WAITS]) as first, forked([MODULE, WAITS]) as second:
        first.logged("waits")
        second.logged("waits")
        first.kill()

        assert first.wait(timeout=60) == -signal.SIGKILL
        assert second.poll() is None
    assert not set(ran_forked(random).out.split()) & set(ran_forked(random).out.split())


def test_what_python_reads_before_the_fork_is_refused() -> None:
    with pytest.raises(AssertionError, match="start a new one"), forked([MODULE, ""], env={"PYTHONDEVMODE": "1"}):
        pass
