"""Reconcilers over real gRPC: what they are told, what their answers become, and what if they are not there."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Any_
from google.rpc.status_pb2 import Status

import dispatcher
from dispatcher import Dispatcher, DispatcherSettings, TargetUnavailableError, service_callback
from dispatcher.callback import Callback
from tests.support.dispatching import Recorder, clock_of, dead_letters, memory, opened, running, state, states, until
from tests.support.grpc import nonsense
from tests.support.processes import spawned
from tests.support.targets import aborting, done, queued_keys, reconciler
from workqueue import InfrastructureError, NonRetriableError, Options, QueueKey, QueueKeys, RequeueAfter
from workqueue import RequeueNotBefore as NotBefore
from workqueue.attempt import Attempt
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.clock import from_us
from workqueue.errors import ExpiredError, InvalidSettingError, RetryAfterError
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.reconciler import serve

REPOSITORY = Path(__file__).resolve().parents[2]
MINUTE = timedelta(minutes=1)


async def test_a_reconciler_is_told_the_key_and_its_attempt() -> None:
    queue = memory()
    await queue.queue("a", Options(priority=7, payload=b"x", meta={"who": "me"}))

    async with reconciler(done) as (server, callback):
        await dispatcher.handle(queue, callback=callback)

    expected = pb.ProcessRequest(key="a", priority=7, payload=b"x", attempts=1, meta={"who": "me"})
    assert server.reconciler.requests == [expected]
    assert await states(queue, "a") == {"a": "UNKNOWN"}


async def test_a_call_has_the_remaining_run_time_as_its_deadline() -> None:
    queue, left = memory(), []

    async def process(request: pb.ProcessRequest, context: Any) -> pb.ProcessResponse:
        left.append(context.time_remaining())
        return pb.ProcessResponse()

    await queue.queue("a")
    async with reconciler(process) as (_, callback):
        await dispatcher.handle(queue, callback=callback, max_run_time=MINUTE)

    assert 50 < left[0] < 61


async def test_a_run_time_without_limit_is_no_deadline_that_has_passed() -> None:
    queue = await queued_keys("a")

    async with reconciler(done) as (_, callback):
        await dispatcher.handle(queue, callback=callback, max_run_time=timedelta.max)

    assert await states(queue, "a") == {"a": "UNKNOWN"}


@pytest.mark.parametrize(
    ("response", "queued"),
    [
        (pb.ProcessResponse(requeue_after_seconds=60), {"a": (False, True)}),
        (pb.ProcessResponse(requeue_after_seconds=60, requeue_floor=True), {"a": (True, True)}),
        (pb.ProcessResponse(requeue_floor=True), {}),
        (pb.ProcessResponse(queue_keys=[pb.QueueKeyRequest(key="b", delay_seconds=5)]), {"b": (False, True)}),
        (pb.ProcessResponse(requeue_after_seconds=60, queue_keys=[pb.QueueKeyRequest(key="b")]), {"a": (False, True)}),
        (pb.ProcessResponse(requeue_after_seconds=-5), {}),
    ],
    ids=lambda value: str(value).replace("\n", " "),
)
async def test_an_answer_becomes_an_outcome(response: pb.ProcessResponse, queued: dict[str, tuple[bool, bool]]) -> None:
    queue = memory()

    async def process(request: pb.ProcessRequest, context: Any) -> pb.ProcessResponse:
        return response

    await queue.queue("a")
    async with reconciler(process) as (_, callback):
        await dispatcher.handle(queue, callback=callback)
    found = {key: await state(queue, key) for key in ("a", "b")}

    assert {k: (s.floor, s.not_before is not None) for k, s in found.items() if s.status.name == "QUEUED"} == queued


async def test_python_on_both_ends_is_as_if_there_were_no_wire() -> None:
    outcomes: dict[str, object] = {
        "none": None,
        "after": RequeueAfter(MINUTE),
        "floor": NotBefore(MINUTE),
        "keys": QueueKeys(QueueKey("child", priority=2, payload=b"x")),
        "final": NonRetriableError("no such customer"),
        "outage": InfrastructureError("down"),
        "error": ValueError("no"),
    }

    async def reconcile(key: str, attempt: Attempt) -> Any:
        outcome = outcomes[key]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    queue, errors = await queued_keys(*outcomes), Recorder()
    async with serve(reconcile, port=0) as server, service_callback(f"grpc://127.0.0.1:{server.port}") as callback:
        await dispatcher.handle(queue, callback=callback, concurrency=20, errors=errors)

    gone = {key for key, status in (await states(queue, *outcomes)).items() if status == "UNKNOWN"}
    assert gone == {"none", "keys", "final"}
    assert (await queue.get("child")).payload == b"x"
    told = {
        event.key: (event.failure.action, event.failure.reason, event.failure.infrastructure) for event in errors.events
    }
    assert told == {
        "final": ("dropped", "no such customer", False),
        "outage": ("requeued", "", True),
        "error": ("requeued", "", False),
    }


@pytest.mark.parametrize(
    ("code", "infrastructure"),
    [(grpc.StatusCode.INTERNAL, False), (grpc.StatusCode.UNKNOWN, False), (grpc.StatusCode.CANCELLED, False)],
)
async def test_an_error_status_fails_the_attempt(code: grpc.StatusCode, infrastructure: bool) -> None:
    queue, errors = await queued_keys("a"), Recorder()

    async with reconciler(aborting(code, "no luck")) as (_, callback):
        await dispatcher.handle(queue, callback=callback, errors=errors, max_retry=1)

    assert errors.events[0].failure.infrastructure is infrastructure
    assert (await dead_letters(queue))["a"].endswith(f"{code.name}: no luck")


@pytest.mark.parametrize("length", [10, 9_000, 1_000_000])
async def test_a_final_error_of_a_go_reconciler_is_final_however_long_and_keeps_text_and_reason(length: int) -> None:
    queue, recorder = memory(), Recorder()
    await queue.queue("a")
    text, details = "boom" * length, Any_()
    details.Pack(pb.NoRetryDetails(message="malformed"))

    async def process(request: pb.ProcessRequest, context: Any) -> pb.ProcessResponse:
        status = Status(code=2, message=text, details=[details]).SerializeToString()
        await context.abort(grpc.StatusCode.UNKNOWN, text, (("grpc-status-details-bin", status),))
        raise AssertionError

    async with reconciler(process) as (_, callback):
        await dispatcher.handle(queue, callback=callback, errors=recorder)

    failure = recorder.events[0].failure
    assert (failure.action, failure.reason) == ("dropped", "malformed")
    assert failure.error.startswith("NonRetriableError: boomboom")


async def test_an_answer_that_cannot_be_read_fails_the_attempt_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    queue = memory()
    await queue.queue("a")
    async with nonsense() as address, service_callback(address) as callback:
        await dispatcher.handle(queue, callback=callback, max_retry=1)

        assert not await callback.is_serving()

    assert await dead_letters(queue) == {"a": "TargetError: this is no reconciler: its answer cannot be read"}
    assert "Traceback" not in caplog.text


async def test_an_answer_that_asks_for_an_impossible_key_fails_the_attempt() -> None:
    queue, errors = await queued_keys("a"), Recorder()

    async def process(request: pb.ProcessRequest, context: Any) -> pb.ProcessResponse:
        return pb.ProcessResponse(queue_keys=[pb.QueueKeyRequest(key="")])

    async with reconciler(process) as (_, callback):
        await dispatcher.handle(queue, callback=callback, errors=errors)

    assert errors.told == [("a", "requeued")]


async def test_stopping_the_dispatcher_cancels_the_call_at_the_reconciler() -> None:
    queue, cancelled = await queued_keys("a"), asyncio.Event()

    async def process(request: pb.ProcessRequest, context: Any) -> pb.ProcessResponse:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return pb.ProcessResponse()

    async with reconciler(process) as (server, callback), Dispatcher(queue, callback) as dispatching:
        await until(lambda: bool(server.reconciler.requests))
        dispatching.stop()
        await cancelled.wait()

    assert (await queue.get("a")).attempts == 0


async def test_a_reconciler_that_goes_down_and_comes_back_costs_no_key_its_attempts() -> None:
    queue = opened(MemoryQueue())
    settings = DispatcherSettings(concurrency=5, max_retry=2)

    async with reconciler(done) as (server, callback), Dispatcher(queue, callback, settings) as dispatching:
        await server.stop()
        for number in range(20):
            await queue.queue(f"k{number}")
        await until(lambda: dispatching.metrics.outcomes["released"] >= 6)
        counts = await queue.counts()
        await server.start()
        await until(lambda: dispatching.metrics.outcomes["completed"] == 20)

    assert (counts.dead_lettered, counts.not_before) == (0, 0)
    assert dispatching.metrics.outcomes["retried"] == 0


FRAIL = """
import asyncio, os, sys
from workqueue.rpc.reconciler import serve

async def reconcile(key, attempt):
    if key == "poison":
        os._exit(1)

async def main():
    async with serve(reconcile, port=int(sys.argv[1])) as server:
        print(server.port, flush=True)
        await server.wait()

asyncio.run(main())
"""


async def kept_alive(port: asyncio.Future[int]) -> None:
    """Start the reconciler again whenever it dies, as an orchestrator does; the first says what its port is."""
    chosen = 0
    while True:
        async with spawned([sys.executable, "-c", FRAIL, str(chosen)]) as it:
            chosen = int(await it.said())
            if not port.done():
                port.set_result(chosen)
            await it.process.wait()


async def test_a_key_that_kills_its_reconciler_each_time_is_dead_lettered_in_the_end() -> None:
    queue, listening = opened(MemoryQueue()), asyncio.get_running_loop().create_future()
    alive = asyncio.ensure_future(kept_alive(listening))
    await queue.queue("poison")
    settings = DispatcherSettings(max_retry=2, backoff=lambda attempts: timedelta(milliseconds=1))
    callback = service_callback(f"grpc://127.0.0.1:{await listening}")

    try:
        async with callback, Dispatcher(queue, callback, settings) as dispatching:
            await until(lambda: dispatching.metrics.outcomes["dead-lettered"] == 1)
    finally:
        alive.cancel()
        await asyncio.wait((alive,))

    assert "UNAVAILABLE" in (await dead_letters(queue))["poison"]


async def test_a_channel_of_ones_own_stays_open() -> None:
    queue = await queued_keys("a", "b")

    async with reconciler(done) as (server, _), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        async with service_callback(channel) as callback:
            await dispatcher.handle(queue, callback=callback, batch_size=1)
        await dispatcher.handle(queue, callback=service_callback(channel))

    assert await states(queue, "a", "b") == {"a": "UNKNOWN", "b": "UNKNOWN"}


@pytest.mark.parametrize("target", ["", "localhost:8080", "ftp://localhost:1", "grpc://localhost", "grpc://h:99999"])
def test_an_address_that_cannot_work_is_refused(target: str) -> None:
    with pytest.raises(InvalidSettingError):
        service_callback(target)


ERRORS = {
    "any error": ValueError("bad"),
    "final": NonRetriableError("no such bucket", "404"),
    "expired": ExpiredError("too late"),
    "infrastructure": InfrastructureError("dns"),
    "later": RetryAfterError(7 * MINUTE, "busy"),
    "target down": TargetUnavailableError("the database is down"),
    "target refused": TargetUnavailableError("a proxy says no", "refused"),
    "requeue": RequeueAfter(MINUTE),
    "keys": QueueKeys(QueueKey("b", delay=MINUTE)),
    "group": ExceptionGroup("two", [RetryAfterError(7 * MINUTE, "a"), RetryAfterError(MINUTE, "b")]),
}


async def effect_of(callback: Callback, max_retry: int) -> object:
    """What became of a key, and what was reported."""
    queue, events = memory(), Recorder()
    await queue.queue("a")
    settings = DispatcherSettings(max_retry=max_retry, backoff=lambda attempts: timedelta(seconds=9))
    async with running(Dispatcher(queue, callback, settings, errors=events)) as dispatching:
        await until(lambda: sum(dispatching.metrics.outcomes.values()) > 0)
    waiting = await state(queue, "a")
    delay = waiting.not_before and waiting.not_before - from_us(queue.clock.wall_us())
    failures = [(event.failure.action, event.failure.infrastructure, event.failure.reason) for event in events.events]
    return waiting.status, waiting.attempts, delay, failures, await states(queue, "b")


@pytest.mark.parametrize("max_retry", [0, 1])
@pytest.mark.parametrize("raised", ERRORS.values(), ids=ERRORS)
async def test_an_error_behind_a_target_has_the_effect_of_one_in_process(raised: Exception, max_retry: int) -> None:
    async def reconcile(key: str, attempt: Attempt) -> None:
        raise raised

    async with serve(reconcile, port=0) as server, service_callback(f"grpc://127.0.0.1:{server.port}") as target:
        behind = await effect_of(target, max_retry)

    assert behind == await effect_of(reconcile, max_retry)


async def test_what_is_down_behind_a_reconciler_dead_letters_no_backlog() -> None:
    queue = memory()
    for number in range(20):
        await queue.queue(f"k{number}")

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise TargetUnavailableError("the database is down", "refused")

    def has_released(enough: int) -> bool:
        clock_of(queue).advance(MINUTE)  # at each look: the loop may not have gone to sleep yet
        return dispatching.metrics.outcomes["released"] >= enough

    async with (
        serve(reconcile, port=0) as server,
        service_callback(f"grpc://127.0.0.1:{server.port}") as target,
        running(Dispatcher(queue, target, DispatcherSettings(max_retry=1))) as dispatching,
    ):
        for _ in range(8):
            enough = dispatching.metrics.outcomes["released"] + 1
            await until(partial(has_released, enough))
        remark = dispatching.health.remark()

    assert await dead_letters(queue) == {}
    assert "starts are held" in remark
