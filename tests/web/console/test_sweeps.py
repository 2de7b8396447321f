"""One verb over everything that matches a filter: counted first, paced, stopped, and never over what came later."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

import pytest

from tests.web.console.browsing import Browser, Page, console_at, stored
from tests.web.console.test_acting import given_up
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import InvalidOptionsError
from workqueue.fallbacks import FullQueue
from workqueue.paging import Place
from workqueue.searching import Filter
from workqueue.testing import FakeClock, FlakyQueue
from workqueue.web.console.sweeps import Order, State, Sweep, Sweeps
from workqueue.web.console.verbs import VERBS

REDRIVE = VERBS["redrive"]


def order(*, rate: float | None = None, dry_run: bool = False, **wanted: str) -> Order:
    return Order(REDRIVE, Place.DEAD_LETTERED, Filter(**wanted), rate, dry_run, "me")  # type: ignore[arg-type]


async def ended(sweep: Sweep) -> Sweep:
    while sweep.state is State.RUNNING:  # noqa: ASYNC110 - each turn of the loop lets it do a step
        await asyncio.sleep(0)
    return sweep


async def ended_page(browser: Browser, page: Page) -> Page:
    while "badge warn" in page.text:
        page = await browser.get(page.path)
    return page


async def letters(queue: FullQueue) -> set[str]:
    return {letter.key async for letter in (await queue.enumerate(0)).dead_letters}


async def test_a_dry_run_says_how_many_and_its_page_does_it(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        await given_up(queue, "a/1", "a/2", "b/1", error="timeout")
        listed = await browser.get("/q/default/keys/dead-lettered?prefix=a/")
        fields = {"verb": "redrive", "place": "dead-lettered", "prefix": "a/", "error": "time"}

        counted = await browser.submit(listed, "/q/default/sweeps", **fields, dry_run="yes")
        counted = await ended_page(browser, counted)
        before = await letters(queue)
        done = await ended_page(browser, await browser.submit(counted, "/q/default/sweeps", **fields))

        assert "Re-drive 2 keys" in counted.said
        assert before == {"a/1", "a/2", "b/1"}
        assert "match 2 re-driven 2 not re-driven 0" in done.said
        assert await letters(queue) == {"b/1"}


async def test_letters_from_after_the_command_began_are_left_alone() -> None:
    clock = FakeClock()
    async with MemoryQueue(clock=clock) as queue:
        await given_up(queue, "old")
        clock.advance(timedelta(seconds=1))
        sweeps = Sweeps("default", queue, clock)
        sweep = sweeps.start(order())
        clock.advance(timedelta(seconds=1))
        await given_up(queue, "new")

        await ended(sweep)

        assert await letters(queue) == {"new"}
        assert (sweep.state, sweep.done) == (State.DONE, 1)


async def test_a_rate_paces_a_sweep_and_stop_ends_it() -> None:
    clock = FakeClock()
    async with MemoryQueue(clock=clock) as queue:
        await given_up(queue, *(f"key-{number}" for number in range(20)))
        clock.advance(timedelta(seconds=1))
        sweep = Sweeps("default", queue, clock).start(order(rate=2))
        for _ in range(15):  # 3 s in steps of the stop button's patience
            for _ in range(50):
                await asyncio.sleep(0)
            clock.advance(timedelta(seconds=0.2))
        paced = sweep.done

        sweep.stopping.set()
        clock.advance(timedelta(seconds=1))
        await ended(sweep)

        assert 5 <= paced <= 7
        assert sweep.state is State.STOPPED
        assert len(await letters(queue)) == 20 - sweep.done


async def test_the_stop_button_stops_it(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        await given_up(queue, *(f"key-{number}" for number in range(5)))
        page = await browser.get("/q/default/keys/dead-lettered")
        begun = await browser.submit(
            page, "/q/default/sweeps", verb="redrive", place="dead-lettered", rate="0.01", attempts="0"
        )

        while "re-driven 1" not in begun.said:
            begun = await browser.get(begun.path)

        stopped = await ended_page(browser, await browser.submit(begun, f"{begun.path}/stop"))

        assert "stopped" in stopped.said
        assert len(await letters(queue)) == 4


async def test_a_store_that_fails_ends_a_sweep_and_its_page_says_so() -> None:
    async with FlakyQueue(MemoryQueue()) as flaky, console_at(flaky) as browser:
        flaky.fail("page", times=100)
        page = await browser.get("/q/default")

        begun = await browser.submit(page, "/q/default/sweeps", verb="redrive", place="dead-lettered")

        shown = await ended_page(browser, begun)
        assert "It ended early: StoreUnavailableError" in shown.said


async def test_a_sweep_is_logged_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "workqueue.web.console")
    clock = FakeClock()
    async with MemoryQueue(clock=clock) as queue:
        await given_up(queue, "a/1", "b/1")
        clock.advance(timedelta(seconds=1))

        await ended(Sweeps("default", queue, clock).start(order(prefix="a/")))

    assert [record.getMessage() for record in caplog.records] == [
        "sweep 1 began: redrive dead-lettered keys of prefix a/: 0 matched, 0 done, 0 not, by me",
        "sweep 1 done: redrive dead-lettered keys of prefix a/: 1 matched, 1 done, 0 not, by me",
    ]


async def test_four_sweeps_run_at_once_and_twenty_are_remembered() -> None:
    clock = FakeClock()
    async with MemoryQueue(clock=clock) as queue:
        sweeps = Sweeps("default", queue, clock)
        for _ in range(25):
            await ended(sweeps.start(order(dry_run=True)))
        for _ in range(4):
            sweeps.start(order())

        with pytest.raises(InvalidOptionsError, match="4 sweeps run already"):
            sweeps.start(order())
        assert len(sweeps.all()) <= 24

        await sweeps.close()
        assert {each.state for each in sweeps.all()} == {State.DONE, State.STOPPED}
