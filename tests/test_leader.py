"""The election of a leader: never two at work, whatever clocks, processes and the store do, and soon one again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.dispatching import bounded, settle_down
from workqueue.errors import InvalidSettingError, StoreUnavailableError
from workqueue.leader import ElectionTimes, Elector, LeaderLease
from workqueue.testing import FakeClock

SECOND = timedelta(seconds=1)


class Store:
    """A lease in memory, as one process reaches it: it may be cut off, or hear nothing of what it did."""

    def __init__(self, shared: dict[str, LeaderLease] | None = None) -> None:
        self.shared = shared if shared is not None else {}
        self.down = self.deaf = self.hanging = False
        self.trouble = "down"
        self.last_answer: asyncio.Event | None = None

    async def read(self) -> LeaderLease:
        await self._reach()
        return self.shared.get("lease", LeaderLease())

    async def write(self, lease: LeaderLease) -> LeaderLease | None:
        await self._reach()
        if lease.version != self.shared.get("lease", LeaderLease()).version:
            return None
        self.shared["lease"] = replace(lease, version=str(int(lease.version or 0) + 1))
        if self.last_answer is not None:
            self.down = True
            await self.last_answer.wait()
        if self.deaf:
            raise StoreUnavailableError("the answer was lost")
        return self.shared["lease"]

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailableError(self.trouble)
        if self.hanging:
            await asyncio.Event().wait()


class Process:
    """A process that stands for election, with a clock and a way to the store of its own."""

    def __init__(self, name: str, shared: dict[str, LeaderLease]) -> None:
        self.store = Store(shared)
        self.clock = FakeClock()
        self.elector = Elector(self.store, name, clock=self.clock)
        self.working = False
        self.stubborn = asyncio.Event()
        self.stubborn.set()
        self.terms = 0
        self.running: asyncio.Task[None] | None = None

    async def work(self) -> None:
        self.working, self.terms = True, self.terms + 1
        try:
            await asyncio.Event().wait()
        finally:
            await self.stubborn.wait()
            self.working = False

    def start(self) -> None:
        self.running = asyncio.create_task(self.elector.run(self.work))

    async def stop(self) -> None:
        """As SIGTERM does."""
        assert self.running is not None
        self.running.cancel()
        while not self.running.done():
            self.clock.advance(SECOND)
            await settle_down(20)

    async def kill(self) -> None:
        """As SIGKILL does: nothing is released."""
        self.store.down = True
        await self.stop()


@contextlib.asynccontextmanager
async def processes(*names: str) -> AsyncIterator[list[Process]]:
    shared: dict[str, LeaderLease] = {}
    all_of_them = [Process(name, shared) for name in names]
    try:
        for process in all_of_them:
            process.start()
            await passing(1, all_of_them)
        yield all_of_them
    finally:
        for process in all_of_them:
            process.stubborn.set()
            await process.stop()


def at_work(*them: Process) -> list[Process]:
    return [process for process in them if process.working]


async def passing(seconds: int, them: list[Process], *, rate: int = 4) -> None:
    """Let time pass for all of them, in fractions of a second; two never work."""
    for _ in range(seconds * rate):
        for process in them:
            process.clock.advance(SECOND / rate)
        await settle_down(20)
        assert sum(process.working for process in them) <= 1


async def test_the_first_leads_and_the_others_wait() -> None:
    async with processes("a", "b", "c") as (a, b, c):
        await passing(60, [a, b, c])
        assert (a.working, b.working, c.working) == (True, False, False)
        assert a.elector.leading
        assert a.terms == 1


async def test_a_leader_that_is_told_to_stop_hands_over_at_once() -> None:
    async with processes("a", "b") as (a, b):
        await a.stop()
        await passing(3, [a, b])
        assert b.working
        assert a.store.shared["lease"].transitions == 1


async def test_a_leader_that_was_killed_is_followed_after_its_lease_and_not_before() -> None:
    async with processes("a", "b") as (a, b):
        await a.kill()
        await passing(10, [b])
        assert not b.working
        await passing(8, [b])
        assert b.working


@pytest.mark.parametrize("trouble", ["down", "hanging"])
def test_a_leader_that_cannot_reach_the_store_stops_before_another_may_lead(trouble: str) -> None:
    @bounded
    async def cut_off() -> None:
        async with processes("a", "b") as (a, b):
            setattr(a.store, trouble, True)
            await passing(8, [a, b])
            assert at_work(a, b) == [a], "one renewal that fails is no reason"
            await passing(4, [a, b])
            assert at_work(a, b) == []
            await passing(6, [a, b])
            assert at_work(a, b) == [b]

    cut_off()


async def test_a_leader_counts_from_when_it_asked_not_from_when_it_was_answered() -> None:
    async with processes("a", "b") as (a, b):
        a.store.last_answer = asyncio.Event()
        while not a.store.down:
            await passing(1, [a, b], rate=4)
        await passing(4, [a, b])
        a.store.last_answer.set()
        await passing(7, [a, b])
        assert not a.working


async def test_a_short_outage_of_the_store_changes_nothing() -> None:
    async with processes("a", "b") as (a, b):
        a.store.down = b.store.down = True
        await passing(6, [a, b])
        a.store.down = b.store.down = False
        await passing(60, [a, b])
        assert (a.working, a.terms) == (True, 1)


async def test_an_outage_of_the_store_is_one_line_and_its_end_another(caplog: pytest.LogCaptureFixture) -> None:
    async with processes("a") as (a,):
        await passing(3, [a])
        a.store.down = True
        await passing(4, [a])
        a.store.trouble = "down in another way"
        await passing(2, [a])
        a.store.down = False

        with caplog.at_level("INFO", "workqueue.leader"):
            await passing(6, [a])

        assert a.working
    lines = [record.getMessage().replace(a.elector.identity, "A") for record in caplog.records]
    assert lines == [
        "the lease of A cannot be read or written, trying again: down",
        "the lease of A can be read and written again",
    ]


async def test_a_renewal_whose_answer_was_lost_is_not_mistaken_for_somebody_elses() -> None:
    async with processes("a", "b") as (a, b):
        a.store.deaf = True
        await passing(3, [a, b])
        a.store.deaf = False
        await passing(20, [a, b])
        assert (a.working, a.terms) == (True, 1)


async def test_somebody_who_edits_the_lease_does_not_end_a_term() -> None:
    async with processes("a", "b") as (a, b):
        for _ in range(5):
            a.store.shared["lease"] = replace(a.store.shared["lease"], version="9" + a.store.shared["lease"].version)
            await passing(3, [a, b])
        assert (a.working, a.terms) == (True, 1)


async def test_a_lease_that_was_deleted_is_made_again() -> None:
    async with processes("a", "b") as (a, b):
        del a.store.shared["lease"]
        await passing(20, [a, b])
        assert sum((a.working, b.working)) == 1


async def test_a_leader_whose_lease_was_given_to_another_stops() -> None:
    async with processes("a") as (a,):
        a.store.shared["lease"] = replace(a.store.shared["lease"], holder="another", version="77")
        await passing(3, [a])
        assert not a.working
        await passing(30, [a])
        assert a.working


@pytest.mark.parametrize("jump", [timedelta(days=1), -timedelta(days=1)])
def test_nobodys_wall_clock_makes_a_difference(jump: timedelta) -> None:
    @bounded
    async def skewed() -> None:
        async with processes("a", "b") as (a, b):
            b.clock.jump_wall(jump)
            await passing(40, [a, b])
            assert (a.working, b.working) == (True, False)
            await a.kill()
            await passing(20, [b])
            assert b.working

    skewed()


async def test_a_process_that_stood_still_stops_its_work_as_soon_as_it_runs_again() -> None:
    async with processes("a", "b") as (a, b):
        await passing(18, [b])
        assert b.working
        a.clock.freeze(timedelta(seconds=18))
        await settle_down(5)
        assert (a.working, a.elector.leading) == (False, False)


async def test_a_process_whose_work_does_not_end_does_not_stand_again(caplog: pytest.LogCaptureFixture) -> None:
    async with processes("a") as (a,):
        a.stubborn.clear()
        a.store.down = True
        await passing(12, [a])
        assert a.working
        assert not a.elector.leading
        a.store.down = False
        await passing(30, [a])
        assert a.terms == 1
        a.stubborn.set()
        await passing(20, [a])
        assert a.terms == 2
        assert "ended after its lease" in caplog.text


async def test_work_that_is_done_ends_the_term_and_frees_the_lease() -> None:
    async def work() -> None:
        await clock.sleep(5)

    store, clock = Store(), FakeClock()
    running = asyncio.create_task(Elector(store, "a", clock=clock).run(work))
    while not running.done():
        clock.advance(SECOND)
        await settle_down(20)
    assert store.shared["lease"].holder == ""


async def test_work_that_fails_frees_the_lease_and_its_error_is_raised() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    store = Store()
    with pytest.raises(ZeroDivisionError):
        await Elector(store, "a", clock=FakeClock()).run(work)
    assert store.shared["lease"].holder == ""


@pytest.mark.parametrize("seed", range(6))
def test_two_never_work_at_once_however_stores_fail_and_clocks_drift(seed: int) -> None:
    @bounded
    async def chaos() -> None:
        chance = random.Random(seed)
        async with processes("a", "b", "c") as them:
            terms = 0
            for _ in range(1500):
                for process in them:
                    process.store.down = chance.random() < 0.3 if chance.random() < 0.1 else process.store.down
                    process.store.deaf = chance.random() < 0.1
                    pause = timedelta(seconds=chance.choice([0.2, 0.22, 0.25]))  # 25 % between the fastest and slowest
                    process.clock.advance(pause)
                    await settle_down(chance.randrange(20))
                assert sum(process.elector.leading for process in them) <= 1
                assert sum(process.working for process in them) <= 1
            terms = sum(process.terms for process in them)
            assert terms > 1, "the seed made no trouble"

    chaos()


@pytest.mark.parametrize("seconds", [(15, 15, 2), (15, 16, 2), (15, 10, 6), (15, 10, 0), (0.9, 0.5, 0.1)], ids=str)
def test_times_that_leave_no_room_are_refused(seconds: tuple[float, ...]) -> None:
    with pytest.raises(InvalidSettingError, match="election"):
        ElectionTimes(*(timedelta(seconds=each) for each in seconds))
