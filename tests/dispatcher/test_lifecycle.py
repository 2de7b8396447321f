"""Lifecycle events over real HTTP: one for each change of a key's state, and none unless somebody asks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import dispatcher
from dispatcher import Attempt, CloudEventErrors, CloudEventLifecycle, StateChange
from tests.dispatcher.test_error_events import Sink, sink
from tests.support.dispatching import clock_of, memory
from workqueue import NonRetriableError, RequeueAfter
from workqueue.clock import from_us
from workqueue.errors import InvalidSettingError
from workqueue.fallbacks import FullQueue
from workqueue.optional import LeaseRequest

LIFECYCLE = "lifecycle.workqueue.v1"


def states(broker: Sink) -> list[tuple[str, str]]:
    """Key and state of each lifecycle event, by time."""
    events = [broker.event(number) for number in range(len(broker.messages))]
    found = [(attributes["time"], data) for attributes, data in events if attributes["type"] == LIFECYCLE]
    order = {"started": 0, "recovered": 0}
    ranked = sorted(found, key=lambda each: (each[0], order.get(each[1]["state"], 1)))
    return [(data["key"], data["state"]) for _, data in ranked]


async def reconcile(key: str, attempt: Attempt) -> RequeueAfter | None:
    match key:
        case "later":
            return RequeueAfter(timedelta(seconds=90))
        case "bad":
            raise ValueError("no")
        case "never":
            raise NonRetriableError("gone")
    return None


async def rounds(queue: FullQueue, url: str, *, number: int = 1, **settings: Any) -> None:
    for _ in range(number):
        errors = CloudEventLifecycle(CloudEventErrors(url, "builds"))
        await dispatcher.handle(queue, callback=reconcile, errors=errors, **settings)


@pytest.mark.parametrize(
    ("key", "state", "settings"),
    [
        ("fine", "completed", {}),
        ("later", "requeued", {}),
        ("bad", "retried", {}),
        ("bad", "dead-lettered", {"max_retry": 1}),
        ("never", "dropped", {}),
    ],
)
async def test_an_attempt_sends_its_start_and_its_end(key: str, state: str, settings: dict[str, Any]) -> None:
    queue = memory()
    await queue.queue(key)
    async with sink() as broker:
        await rounds(queue, broker.url, **settings)
        assert sorted(states(broker)) == sorted([(key, "started"), (key, state)])


async def test_an_event_says_all_that_is_known_of_the_change() -> None:
    queue = memory()
    clock = clock_of(queue)
    await queue.queue("bad")
    async with sink() as broker:
        await rounds(queue, broker.url, backoff=lambda attempts: timedelta(seconds=5))
        events = [broker.event(number) for number in range(3)]
    (attributes, data), *_ = [event for event in events if event[1].get("state") == "retried"]
    now = from_us(clock.wall_us())
    assert (attributes["source"], attributes["subject"], attributes["state"]) == ("builds", "bad", "retried")
    assert data == {
        "key": "bad",
        "state": "retried",
        "attempts": 1,
        "occurAt": now.isoformat().replace("+00:00", "Z"),
        "reconcilerName": "builds",
        "error": "ValueError: no",
        "notBefore": (now + timedelta(seconds=5)).isoformat().replace("+00:00", "Z"),
    }


@pytest.mark.parametrize(("max_retry", "state"), [(0, "recovered"), (1, "dead-lettered")])
async def test_the_end_of_an_orphan_is_sent_by_who_finds_it(max_retry: int, state: str) -> None:
    queue = memory()
    clock = clock_of(queue)
    await queue.queue("a")
    (owned,) = (await queue.lease(LeaseRequest(1, 1))).started
    owned.abandon()
    clock.advance(timedelta(minutes=1))
    async with sink() as broker:
        await rounds(queue, broker.url, max_retry=max_retry)
        assert ("a", state) in states(broker)


async def test_nothing_is_sent_unless_asked_for() -> None:
    queue = memory()
    await queue.queue("fine")
    async with sink() as broker:
        await dispatcher.handle(queue, callback=reconcile, errors=CloudEventErrors(broker.url, "builds"))
        assert broker.messages == []


async def test_error_events_are_sent_beside() -> None:
    queue = memory()
    await queue.queue("bad")
    async with sink() as broker:
        await rounds(queue, broker.url)
        types = sorted(broker.event(number)[0]["type"] for number in range(3))
    assert types == ["dev.chainguard.workqueue.error.v1", LIFECYCLE, LIFECYCLE]


async def test_a_flood_of_them_costs_no_error_event() -> None:
    async with sink() as broker:
        errors = CloudEventLifecycle(CloudEventErrors(broker.url, "builds"))
        for _ in range(12_000):
            errors.changed(StateChange("a", "started", 1, from_us(1)))
        queue = memory()
        await queue.queue("bad")
        await dispatcher.handle(queue, callback=reconcile, errors=errors)
        await errors.give_up()
    assert errors.results == {"sent": 1, "failed": 0, "dropped": 0}
    assert errors.changes["dropped"] >= 12_000 - 10_100


async def test_a_sink_that_raises_costs_no_key() -> None:
    class Raising(CloudEventLifecycle):
        def changed(self, change: StateChange) -> None:
            raise RuntimeError("a bug")

    queue = memory()
    await queue.queue("fine")
    async with sink() as broker:
        await dispatcher.handle(queue, callback=reconcile, errors=Raising(CloudEventErrors(broker.url, "builds")))
    assert (await queue.counts()).queued == 0


def test_they_need_a_broker() -> None:
    with pytest.raises(InvalidSettingError, match="no URL of a broker"):
        CloudEventLifecycle(CloudEventErrors("", "builds"))
