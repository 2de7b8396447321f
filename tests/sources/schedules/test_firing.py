"""Schedules fire: at their ticks, once, through crashes, outages, redefinitions and pauses."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest

from dispatcher import Dispatcher
from tests.support.dispatching import running, settle_down
from tests.support.schedules import NOON, SETTINGS, scheduled
from workqueue import Options
from workqueue.errors import KeyNotFoundError, StoreUnavailableError
from workqueue.optional import LeaseRequest
from workqueue.sources.schedules import Firing, Schedule
from workqueue.testing import FlakyQueue

EVERY_TWO = Schedule("s", "*/2 * * * *", "k")


async def test_a_schedule_enqueues_its_key_at_every_tick() -> None:
    async with scheduled() as world:
        await world.shelf.declare([Schedule("s", "*/2 * * * *", "k", priority=3, payload=b"p", meta={"team": "web"})])
        async with world.dispatched():
            await world.passes(7)
        state = await world.target.get("k")
        assert world.target.sent == [("2:00", "k"), ("4:00", "k"), ("6:00", "k")]
        assert (state.priority, state.payload, state.meta["team"]) == (3, b"p", "web")
        assert state.meta["scheduled-time"] == "2026-06-01T12:06:00+00:00"


async def test_many_processes_fire_each_tick_once() -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO])
        others = [Dispatcher(world.schedules, Firing(world.target, world.schedules), SETTINGS) for _ in range(5)]
        async with running(others[0]), running(others[1]), running(others[2]), running(others[3]), running(others[4]):
            await world.passes(7)
        assert world.fired == ["2:00", "4:00", "6:00"]


async def test_a_process_killed_between_the_lease_and_the_enqueue_loses_no_tick() -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO])
        world.clock.advance(timedelta(minutes=2))
        (owned,) = (await world.schedules.lease(LeaseRequest(1, 1))).started
        owned.abandon()
        async with world.dispatched():
            await world.passes(1)
        assert world.fired == ["2:16"], "as soon as the lease has lapsed"


@pytest.mark.parametrize("missed", ["once", "skip", "all"])
async def test_a_process_killed_between_the_enqueue_and_its_note_repeats_that_tick_only(missed: str) -> None:
    async with scheduled() as world:
        await world.shelf.declare([Schedule("s", "*/2 * * * *", "k", missed=missed)])  # type: ignore[arg-type]
        world.clock.advance(timedelta(minutes=2))
        (owned,) = (await world.schedules.lease(LeaseRequest(1, 1))).started
        await world.target.queue("k")
        owned.abandon()
        (run,) = (await world.target.lease(LeaseRequest(1, 1))).started
        await run.complete()
        async with world.dispatched():
            await world.passes(1)
        assert world.fired == ["2:00", "2:16"]


async def test_a_process_killed_after_its_note_repeats_nothing() -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO])
        world.clock.advance(timedelta(minutes=2))
        (owned,) = (await world.schedules.lease(LeaseRequest(1, 1))).started
        await world.firing("s", owned)  # type: ignore[arg-type]
        owned.abandon()
        async with world.dispatched():
            await world.passes(3)
        assert world.fired == ["2:00", "4:00"]


async def test_what_nobody_fired_is_made_up_for_once() -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO])
        world.clock.advance(timedelta(minutes=9))
        async with world.dispatched():
            await world.passes(2)
        assert world.fired == ["9:00", "10:00"]
        assert (world.firing.metrics.fired, world.firing.metrics.missed) == (2, 3)


async def test_every_missed_tick_gets_a_run_of_its_own_if_asked_to() -> None:
    async with scheduled() as world:
        await world.shelf.declare([Schedule("s", "*/2 * * * *", "k", missed="all")])
        world.clock.advance(timedelta(minutes=7))
        seen: list[str] = []
        async with world.dispatched():
            for _ in range(3):
                await world.passes(0.1)
                (run,) = (await world.target.lease(LeaseRequest(1, 1))).started
                seen.append(run.meta["scheduled-time"][14:16])
                await run.complete()
        assert seen == ["02", "04", "06"]


async def test_a_target_that_is_down_gets_its_tick_when_it_is_back() -> None:
    async with scheduled() as world:
        flaky = FlakyQueue(world.target)
        flaky.fail("queue", StoreUnavailableError(), times=3)
        world.firing = Firing(flaky, world.schedules)
        await world.shelf.declare([Schedule("s", "*/2 * * * *", "k", missed="skip")])
        async with world.dispatched():
            await world.passes(3)
        assert world.fired == ["2:07"], "after 1, 2 and 4 seconds"


async def test_a_schedule_that_is_pulled_forward_does_not_fire_early() -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO])
        async with world.dispatched():
            await world.passes(1)
            await world.schedules.queue("s")
            await world.passes(2)
        assert world.fired == ["2:00"]


async def test_an_update_neither_fires_twice_nor_waits_for_the_old_tick() -> None:
    async with scheduled() as world:
        await world.shelf.declare([Schedule("s", "0 0 1 1 *", "k")])
        async with world.dispatched():
            await world.passes(1)
            assert await world.shelf.declare([EVERY_TWO]) == ["s"]
            await world.passes(2)
            assert await world.shelf.declare([Schedule("s", "*/5 * * * *", "k")]) == ["s"]
            await world.passes(3)
        assert world.fired == ["2:00", "5:00"]


async def test_an_update_while_the_schedule_fires_is_not_overwritten() -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO])
        world.clock.advance(timedelta(minutes=2))
        (owned,) = (await world.schedules.lease(LeaseRequest(1, 1))).started
        await world.shelf.declare([Schedule("s", "*/5 * * * *", "new")])
        outcome = await world.firing("s", owned)  # type: ignore[arg-type]
        assert outcome is not None
        await owned.requeue(delay=outcome.next_delay())
        async with world.dispatched():
            await world.passes(5)
        assert world.target.sent == [("2:00", "k"), ("5:00", "new")]


async def test_declaring_the_same_again_changes_nothing() -> None:
    async with scheduled() as world:
        await world.shelf.declare([Schedule("s", "@every 2m", "k")])
        world.clock.advance(timedelta(minutes=3))
        assert await world.shelf.declare([Schedule("s", "@every 2m", "k")]) == []
        async with world.dispatched():
            await world.passes(2)
        assert world.fired == ["3:00", "4:00"], "its missed tick and its phase are as they were"


async def test_a_paused_schedule_does_not_fire_and_misses_nothing() -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO])
        async with world.dispatched():
            await world.shelf.pause("s")
            await world.passes(5)
            assert await world.shelf.declare([EVERY_TWO]) == []
            await world.shelf.resume("s")
            await world.passes(2)
        assert world.fired == ["6:00"]


async def test_a_removed_schedule_is_gone() -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO])
        assert await world.shelf.remove("s")
        assert not await world.shelf.remove("s")
        async with world.dispatched():
            await world.passes(5)
        assert (world.fired, await world.shelf.listing()) == ([], [])


async def test_a_schedule_that_is_removed_while_it_fires_does_not_come_back() -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO])
        world.clock.advance(timedelta(minutes=2))
        (owned,) = (await world.schedules.lease(LeaseRequest(1, 1))).started
        assert await world.shelf.remove("s")
        assert await world.shelf.listing() == []
        outcome = await world.firing("s", owned)  # type: ignore[arg-type]
        assert outcome is not None
        await owned.requeue(delay=outcome.next_delay())
        async with world.dispatched():
            await world.passes(5)
        assert world.fired == ["2:00"]
        with pytest.raises(KeyNotFoundError):
            await world.schedules.get("s")


async def test_a_schedule_can_be_declared_again_while_it_is_being_removed() -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO])
        world.clock.advance(timedelta(minutes=2))
        (owned,) = (await world.schedules.lease(LeaseRequest(1, 1))).started
        await world.shelf.remove("s")
        await world.shelf.declare([EVERY_TWO])
        await owned.release()
        async with world.dispatched():
            await world.passes(3)
        assert world.fired == ["4:00"]


async def test_run_now_leaves_the_ticks_as_they_are() -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO])
        async with world.dispatched():
            await world.passes(1)
            await world.shelf.run_now("s", world.target)
            await world.passes(2)
        assert world.fired == ["1:00", "2:00"]


async def test_the_listing_tells_last_and_next_even_of_one_that_fires() -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO, Schedule("idle", "@daily", "k", paused=True)])
        async with world.dispatched():
            await world.passes(3)
        world.clock.advance(timedelta(minutes=1))
        await world.schedules.lease(LeaseRequest(1, 1))
        idle, firing = await world.shelf.listing()
        assert (idle.name, idle.next, idle.last) == ("idle", None, None)
        assert (firing.last, firing.next) == (NOON + timedelta(minutes=2), NOON + timedelta(minutes=4))


async def test_a_definition_that_cannot_be_read_is_kept_and_shown(caplog: pytest.LogCaptureFixture) -> None:
    async with scheduled() as world:
        await world.schedules.queue("odd", Options(payload=b'{"version": 99}'))
        async with world.dispatched():
            await world.passes(10, timedelta(seconds=10))
        (odd,) = await world.shelf.listing()
        assert (odd.name, odd.schedule) == ("odd", None)
        assert "later release" in odd.problem


async def test_a_key_that_is_no_schedule_is_dropped() -> None:
    async with scheduled() as world:
        await world.schedules.queue("stray")
        async with world.dispatched():
            await settle_down()
        with pytest.raises(KeyNotFoundError):
            await world.schedules.get("stray")


async def test_how_late_it_fired_is_measured_from_when_it_was_to_fire() -> None:
    async with scheduled() as world:
        await world.shelf.declare([Schedule("s", "*/2 * * * *", "k", jitter=timedelta(seconds=30))])
        async with world.dispatched():
            await world.passes(3, timedelta(milliseconds=100))
        values = {name: value for name, _, value in world.firing.metrics.samples()}
        assert values["workqueue_schedule_firings_total"] == 1
        assert 0 <= world.firing.metrics.lateness.total <= 100_000


async def test_two_thousand_schedules_that_tick_together_all_fire() -> None:
    async with scheduled() as world:
        await world.shelf.declare([Schedule(f"s{n}", "0 * * * *", f"k{n}") for n in range(2_000)])
        async with world.dispatched():
            world.clock.advance(timedelta(hours=1))
            while len(world.target.sent) < 2_000:  # noqa: ASYNC110 - the loop has it all to do
                await asyncio.sleep(0)
            await settle_down()
        assert len({key for _, key in world.target.sent}) == 2_000


async def test_missed_ticks_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with scheduled() as world:
        await world.shelf.declare([EVERY_TWO])
        world.clock.advance(timedelta(minutes=7))
        with caplog.at_level(logging.WARNING):
            async with world.dispatched():
                await settle_down()
        assert "schedule 's' missed 2 ticks" in caplog.text


async def test_the_log_tells_what_a_schedule_enqueued_and_when_it_fires_next(caplog: pytest.LogCaptureFixture) -> None:
    async with scheduled() as world:
        with caplog.at_level(logging.INFO):
            await world.shelf.declare([EVERY_TWO])
            async with world.dispatched():
                await world.passes(2)
        said = [record.message for record in caplog.records if "schedule 's'" in record.message]
        assert said == [
            "schedule 's' is new or changed: key 'k', '*/2 * * * *' in UTC",
            "schedule 's' enqueued key 'k' for 2026-06-01 12:02:00+00:00, next at 2026-06-01 12:04:00+00:00",
        ]
