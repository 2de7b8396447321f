"""What is shown and refused of the processes that tests start, and that none outlives a set-up that fails."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import redis_server
from tests.fakes.gcs import public
from tests.fakes.gcs.process import GcsProcess
from tests.fakes.gcs.public import PublicEmulator
from tests.fakes.redis_server import RedisCluster, RedisSentinels, RedisServer
from tests.support.processes import python, ran, spawned, started

NEVER_AWAITED = "import asyncio\nasyncio.sleep(0)"
LEFT_OPEN = "import os; handle = open(os.devnull); del handle"
DESTROYED = """
import asyncio, gc
async def forever(): await asyncio.Event().wait()
loop = asyncio.new_event_loop()
task = loop.create_task(forever())
loop.run_until_complete(asyncio.sleep(0))
loop.close()
del task
gc.collect()
"""
NEVER_RETRIEVED = """
import asyncio
async def failing(): raise ValueError
async def main(): asyncio.ensure_future(failing()); await asyncio.sleep(0)
asyncio.run(main())
"""
THREAD = "import threading; threading.Thread(target=lambda: 1 / 0).start()"
BAD = {
    "a coroutine that nobody awaited": NEVER_AWAITED,
    "a file left open": LEFT_OPEN,
    "a task destroyed": DESTROYED,
    "an exception nobody retrieved": NEVER_RETRIEVED,
    "a thread's traceback": THREAD,
}


@pytest.mark.parametrize("script", BAD.values(), ids=BAD)
def test_a_process_that_complains_fails_the_test_though_it_exits_with_0(script: str) -> None:
    with pytest.raises(AssertionError, match="complained"):
        python("-c", script)

    assert python("-c", script, complains=True).code == 0


def test_a_process_that_complains_in_the_background_fails_the_test_too() -> None:
    with (
        pytest.raises(AssertionError, match=r"(?s)complained:.*Traceback.*ZeroDivisionError"),
        started([sys.executable, "-c", THREAD]) as it,
    ):
        assert it.wait() == 0


async def test_a_process_of_the_event_loop_that_complains_fails_the_test_too() -> None:
    with pytest.raises(AssertionError, match="complained"):
        async with spawned([sys.executable, "-c", THREAD]) as it:
            assert await it.process.wait() == 0


def test_what_a_process_wrote_is_shown_and_a_failure_of_the_tests_own_comes_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(AssertionError, match=r"^0 is not 1"), started([sys.executable, "-c", THREAD]) as it:
        assert it.wait() == 1, "0 is not 1"

    assert "Traceback" in capsys.readouterr().err


def test_lines_are_heard_in_their_order_however_long_they_are() -> None:
    script = (
        "import sys; [sys.stderr.write(f'{n} ' + 'x' * 100_000 + '\\n') for n in range(9)]; sys.stderr.write('last')"
    )

    with started([sys.executable, "-c", script]) as it:
        assert [it.logged(f"{number} ")[:2] for number in (1, 8)] == ["1 ", "8 "]
        with pytest.raises(AssertionError, match="ended with 0 before it wrote '3 '"):
            it.logged("3 ")


def test_a_process_ends_with_its_block_and_a_name_can_be_taken_from_its_environment() -> None:
    with started([sys.executable, "-c", "import time; time.sleep(600)"]) as it:
        assert it.poll() is None

    assert (it.returncode, it.err) == (-9, "")
    assert ran(["sh", "-c", "echo ${HOME-none}"], env={"HOME": None}).out == "none\n"


def children() -> set[str]:
    """The process ids of what this process has started and not waited for."""
    return {pid for each in Path("/proc/self/task").glob("*/children") for pid in each.read_text().split()}


def refuse(*args: object, **named: object) -> Any:
    raise TimeoutError("a later step of the set-up fails")


@pytest.mark.parametrize(
    ("server", "module", "step"),
    [
        (RedisServer, redis_server.RedisServer, "_is_ours"),
        (RedisSentinels, redis_server, "eventually"),
        (RedisCluster, redis_server, "eventually"),
        (GcsProcess, ExitStack, "pop_all"),
        (PublicEmulator, public, "buckets"),
    ],
)
def test_a_server_whose_set_up_fails_leaves_no_process_and_no_folder(
    server: type[AbstractContextManager[object]],
    module: object,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = children()
    monkeypatch.setattr(module, step, refuse)

    with pytest.raises(TimeoutError), server():
        pass

    assert children() == before
    assert list(tmp_path.iterdir()) == []
