"""`/status`: what only a dispatcher knows, as JSON, for those who may run a round."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import dispatcher
from dispatcher import Attempt, Dispatcher, DispatcherSettings, TargetUnavailableError
from dispatcher.status import MAX_RUNNING, Status
from tests.dispatcher.test_loop import Gate
from tests.dispatcher.test_trigger import asked, asking
from tests.support.dispatching import memory, nothing, pass_time, running, settle_down
from workqueue.access.tokens import StaticTokens
from workqueue.throttle import Configuration
from workqueue.web.bearer import BearerTokens

SECOND = timedelta(seconds=1)


def status_of(dispatcher_: Dispatcher) -> Any:
    return json.loads(json.dumps(Status(dispatcher_.setup, dispatcher_.health).document()))


async def test_the_status_names_the_keys_in_hand_those_that_run_longest_first() -> None:
    queue, gate = memory(), Gate()
    async with running(Dispatcher(queue, gate)) as it:
        await queue.queue("early")
        await pass_time(queue, 3 * SECOND)
        await queue.queue("late")
        await pass_time(queue, 2 * SECOND)

        found = status_of(it)["running"]

    assert [(key["key"], key["attempts"]) for key in found["keys"]] == [("early", 1), ("late", 1)]
    assert found["keys"][0]["seconds"] - found["keys"][1]["seconds"] == 3.0
    assert (found["count"], found["runaway"]) == (2, 0)


async def test_the_status_names_no_more_keys_than_a_reader_can_take_and_counts_them_all() -> None:
    queue, gate = memory(), Gate()
    async with running(Dispatcher(queue, gate, DispatcherSettings(concurrency=MAX_RUNNING + 5))) as it:
        for number in range(MAX_RUNNING + 5):
            await queue.queue(f"{number}")
        await settle_down(500)

        found = status_of(it)["running"]

    assert (len(found["keys"]), found["count"]) == (MAX_RUNNING, MAX_RUNNING + 5)


async def test_the_status_counts_outcomes_and_says_how_many_there_are_a_second() -> None:
    queue = memory()
    async with running(Dispatcher(queue, nothing, DispatcherSettings(concurrency=20))) as it:
        first = status_of(it)
        for number in range(20):
            await queue.queue(f"{number}")
        await pass_time(queue, 10 * SECOND)

        found = status_of(it)

    assert first["rates"]["per_second"]["completed"] == 0.0
    assert found["outcomes"]["completed"] == 20
    assert (found["rates"]["over_seconds"], found["rates"]["per_second"]["completed"]) == (10.0, 2.0)
    assert found["rates"]["starts_per_second"] == 2.0
    assert found["rounds"]["ok"] > first["rounds"]["ok"]


async def test_the_status_says_that_the_target_is_down_for_how_long_and_why() -> None:
    async def down(key: str, attempt: Attempt) -> None:
        raise TargetUnavailableError("connection refused by 10.0.0.7")

    queue = memory()
    async with running(Dispatcher(queue, down)) as it:
        for number in range(5):
            await queue.queue(f"{number}")
        await pass_time(queue, 2 * SECOND)

        found = status_of(it)

    assert found["target"]["down"]
    assert found["target"]["down_seconds"] >= 1.0
    assert "connection refused by 10.0.0.7" in found["target"]["error"]
    assert "the target has been down" in found["remark"]


async def test_the_status_shows_the_limits_those_stored_with_the_queue_too() -> None:
    queue, found = memory(), dict[str, Any]()
    await queue.configure(Configuration(concurrency=2, paused=True))

    async with asking(dispatcher.handler(queue, callback=nothing, concurrency=7, max_retry=3)) as session:
        while not found.get("paused"):  # what is stored is read in the background, with the gauges
            await asked(session, "/metrics", "GET")
            _, text = await asked(session, "/status", "GET")
            found = json.loads(text)["limits"]

    assert (found["concurrency"], found["max_retry"], found["batch_size"]) == (7, 3, 7)
    assert found["effective_concurrency"] == 2


async def test_a_draining_dispatcher_says_so_in_its_status() -> None:
    it = Dispatcher(memory(), nothing)

    before = status_of(it)
    it.begin_drain()
    after = status_of(it)

    assert (before["draining"], before["trouble"]) == (False, "")
    assert (after["draining"], after["trouble"]) == (True, "draining")


async def test_the_status_needs_the_token_that_a_trigger_needs() -> None:
    app = BearerTokens(dispatcher.handler(memory(), callback=nothing), StaticTokens(["secret"]))

    async with asking(app) as session:
        refused, _ = await asked(session, "/status", "GET")

    assert refused == 401
