"""How programs end: signals are heeded from the first moment, each further one only hurries the drain."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.grpc import on_loop
from tests.support.processes import REPOSITORY, ran, started
from tests.support.programs import serving
from workqueue.signals import until_signalled

ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


def me(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
@on_loop
async def test_the_first_signal_ends_and_every_further_one_hurries(number: signal.Signals) -> None:
    called: asyncio.Queue[str] = asyncio.Queue()
    with until_signalled(lambda: called.put_nowait("end"), lambda: called.put_nowait("hurry")):
        me(number)
        first = await called.get()
        me(number)
        second = await called.get()
        me(signal.SIGTERM)

        assert [first, second, await called.get()] == ["end", "hurry", "hurry"]


@on_loop
async def test_the_innermost_block_decides_and_the_outer_one_takes_over_after_it() -> None:
    called: asyncio.Queue[str] = asyncio.Queue()
    with until_signalled(lambda: called.put_nowait("outer end"), lambda: called.put_nowait("outer hurry")):
        with until_signalled(lambda: called.put_nowait("inner end")):
            me(signal.SIGTERM)
            assert await called.get() == "inner end"
        me(signal.SIGTERM)
        assert await called.get() == "outer hurry"


@on_loop
async def test_what_begins_after_a_signal_is_cancelled_at_once() -> None:
    signalled = asyncio.Event()
    with until_signalled(signalled.set):
        me(signal.SIGTERM)
        await signalled.wait()
        with pytest.raises(asyncio.CancelledError), until_signalled(lambda: None):
            raise AssertionError("it must not begin")


@on_loop
async def test_the_handlers_from_before_are_back_after_the_block() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with until_signalled(lambda: None):
        pass

    assert [signal.getsignal(number) for number in ENDING] == before


def test_outside_the_main_thread_signals_are_somebody_elses() -> None:
    ended: list[str] = []

    async def block() -> None:
        with until_signalled(lambda: None):
            ended.append("well")

    thread = threading.Thread(target=lambda: asyncio.run(block()))
    thread.start()
    thread.join()

    assert ended == ["well"]


def test_a_hang_up_that_was_ignored_from_the_start_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        async def block() -> object:
            with until_signalled(lambda: None):
                return signal.getsignal(signal.SIGHUP)

        assert asyncio.run(block()) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


SLOW_TO_IMPORT = "import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n"


@pytest.mark.parametrize(
    ("module", "args", "code"),
    [
        ("dispatcher.start", ["serve"], lambda number: 0),
        ("workqueue.cli.start", ["receive"], lambda number: 0),
        ("workqueue.cli.start", ["ls"], lambda number: 128 + number),
    ],
    ids=["dispatcher", "receiver", "command"],
)
@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_a_signal_is_heeded_while_a_program_is_imported(
    module: str, args: list[str], code: Callable[[int], int], number: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "typer.py").write_text(SLOW_TO_IMPORT)
    program = f"from {module} import start; start()"
    path = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    with started([sys.executable, "-c", program, *args], env=path) as process:
        assert process.said() == "importing"
        process.send_signal(number)

        assert (process.wait(timeout=60), process.err) == (code(number), "")


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_a_signal_ends_a_server_whose_store_cannot_be_reached(number: signal.Signals) -> None:
    nowhere = ["--queue", "redis://127.0.0.1:1/0"]
    with serving("workqueue.cli", "receive", *nowhere, "--grpc-port", "0", "--http-port", "0") as it:
        it.logged("trying again")
        it.tell(number)

        assert it.ended() == 0


LAST = """
import os, signal, sys
from workqueue.signals import {names}
exit_on_signals(0)
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
{then}
last = Last()
sys.exit(3)
"""


@pytest.mark.parametrize("then", ["", "exit_at_once_on_signals(3)"], ids=["without", "with"])
def test_a_signal_in_the_last_moment_does_not_change_the_exit_code(then: str) -> None:
    """The object is deleted when the interpreter has given signals back to the kernel."""
    program = LAST.format(names="exit_at_once_on_signals, exit_on_signals", then=then)

    assert ran([sys.executable, "-c", program]).code == 3


CUT_SHORT = """
import asyncio, os, signal
from workqueue.signals import exit_on_signals
exit_on_signals(5)
async def work(): ...
async def main():
    made, opened = work(), open(os.devnull)
    os.kill(os.getpid(), signal.SIGTERM)
asyncio.run(main())
"""


def test_a_signal_between_two_steps_leaves_no_warning_of_what_it_cut_short() -> None:
    ended = ran([sys.executable, "-c", CUT_SHORT])

    assert (ended.code, ended.err) == (5, "")


HELD_UP = """
import os, signal, threading
from workqueue.signals import exit_at_once_on_signals
exit_at_once_on_signals(4)
def hold_up():
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait()
threading.Thread(target=hold_up).start()
"""


def test_once_all_is_done_a_signal_ends_what_still_holds_the_process_up() -> None:
    assert ran([sys.executable, "-c", HELD_UP]).code == 4
