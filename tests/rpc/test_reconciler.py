"""A callback served over gRPC: its outcomes and errors as a dispatcher in Python or Go gets them."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import grpc
import pytest
from google.rpc.status_pb2 import Status

from tests.support.grpc import on_loop, refused, stub_of, trailers_of
from workqueue import (
    InfrastructureError,
    NonRetriableError,
    Outcome,
    QueueKey,
    QueueKeys,
    RequeueAfter,
    RequeueNotBefore,
)
from workqueue.attempt import Attempt
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.reconciler import serve
from workqueue.rpc.statuses import DETAILS_TRAILER, from_reconciler, marked

MINUTE = timedelta(minutes=1)


async def answer_of(callback: object, request: pb.ProcessRequest | None = None) -> pb.ProcessResponse:
    async with serve(callback, port=0) as server, stub_of(server) as stub:  # type: ignore[arg-type]
        return await stub.Process(request or pb.ProcessRequest(key="k"))


async def error_of(callback: object) -> grpc.aio.AioRpcError:
    return await refused(answer_of(callback))


def raising(error: BaseException) -> object:
    async def callback(key: str, attempt: Attempt) -> None:
        raise error

    return callback


@pytest.mark.parametrize("takes_it_back", [False, True])
async def test_a_callback_that_cancels_itself_as_its_last_act_has_answered(takes_it_back: bool) -> None:
    async def callback(key: str, attempt: Attempt) -> RequeueAfter:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if takes_it_back:
            task.uncancel()
        return RequeueAfter(MINUTE)

    async with asyncio.timeout(10):
        assert await answer_of(callback) == pb.ProcessResponse(requeue_after_seconds=60)


async def test_a_task_of_a_callback_that_exits_ends_neither_the_server_nor_the_other_calls() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def callback(key: str, attempt: Attempt) -> None:
        if key == "bad":
            async with asyncio.TaskGroup() as group:
                group.create_task(leave())

    async with serve(callback, port=0) as server, stub_of(server) as stub:
        error = await refused(stub.Process(pb.ProcessRequest(key="bad")))
        answer = await stub.Process(pb.ProcessRequest(key="good"))

    assert error.details() == "ExitedError: a task of the callback called sys.exit(3)"
    assert answer == pb.ProcessResponse()


class Unreadable(NonRetriableError):
    """A final error whose text and reason cannot be had."""

    def __init__(self) -> None:
        Exception.__init__(self)

    def __str__(self) -> str:
        raise SystemExit(3)

    def __getattribute__(self, name: str) -> object:
        if name == "reason":
            raise ValueError
        return super().__getattribute__(name)


def deep(levels: int) -> Exception:
    error: Exception = ValueError("the real reason")
    for _ in range(levels):
        error = ExceptionGroup("deeper", [error])
    return error


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (Unreadable(), "Unreadable"),
        (ExceptionGroup("two", [Unreadable(), Unreadable()]), "Unreadable; Unreadable"),
        (deep(2000), "ValueError: the real reason"),
    ],
    ids=["unreadable", "two of them", "deep"],
)
async def test_an_error_whose_own_code_breaks_is_an_answer(raised: Exception, text: str) -> None:
    error = await error_of(raising(raised))

    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, text)
    assert (marked(error) is not None) == ("Unreadable" in text)


@pytest.mark.parametrize(
    ("outcome", "response"),
    [
        (RequeueAfter(MINUTE), pb.ProcessResponse(requeue_after_seconds=60)),
        (RequeueNotBefore(MINUTE), pb.ProcessResponse(requeue_after_seconds=60, requeue_floor=True)),
        (
            QueueKeys(QueueKey("child", 2, MINUTE, b"p")),
            pb.ProcessResponse(
                queue_keys=[pb.QueueKeyRequest(key="child", priority=2, delay_seconds=60, payload=b"p")]
            ),
        ),
    ],
    ids=["after", "floor", "children"],
)
@on_loop
async def test_an_outcome_is_answered_whether_returned_or_raised(
    outcome: Outcome, response: pb.ProcessResponse
) -> None:
    async def returns(key: str, attempt: Attempt) -> Outcome:
        return outcome

    assert await answer_of(returns) == response
    assert await answer_of(raising(outcome)) == response
    assert await answer_of(raising(ExceptionGroup("a TaskGroup", [outcome]))) == response


@on_loop
async def test_a_callback_is_told_of_its_attempt() -> None:
    seen: list[Attempt] = []

    async def callback(key: str, attempt: Attempt) -> None:
        assert attempt.remaining() > timedelta(days=1)
        attempt.extend(MINUTE)
        seen.append(attempt)

    request = pb.ProcessRequest(key="k", priority=-4, payload=b"p", attempts=3, meta={"a": "b"})
    assert await answer_of(callback, request) == pb.ProcessResponse()

    (attempt,) = seen
    assert (attempt.key, attempt.priority, attempt.payload, attempt.attempts) == ("k", -4, b"p", 3)
    assert attempt.meta == {"a": "b"}
    assert "c" not in attempt.meta
    with pytest.raises(KeyError):
        attempt.meta["c"]
    assert attempt.queued_time is None
    assert not attempt.lost.is_set()


@on_loop
async def test_a_go_dispatcher_says_less() -> None:
    seen: list[Attempt] = []

    async def callback(key: str, attempt: Attempt) -> None:
        seen.append(attempt)

    await answer_of(callback, pb.ProcessRequest(key="k", priority=1))

    assert (seen[0].payload, dict(seen[0].meta), seen[0].attempts) == (None, {}, 0)


@on_loop
async def test_the_callers_deadline_is_the_time_that_remains() -> None:
    remaining: list[timedelta] = []

    async def callback(key: str, attempt: Attempt) -> None:
        remaining.append(attempt.remaining())

    async with serve(callback, port=0) as server, stub_of(server) as stub:
        await stub.Process(pb.ProcessRequest(key="k"), timeout=1000)

    assert timedelta(seconds=900) < remaining[0] < timedelta(seconds=1100)  # gRPC sends two digits of it


@on_loop
async def test_a_plain_function_runs_in_a_thread_of_its_own() -> None:
    def callback(key: str, attempt: Attempt) -> RequeueAfter:
        assert threading.current_thread() is not threading.main_thread()
        assert threading.current_thread().daemon
        return RequeueAfter(MINUTE)

    assert await answer_of(callback) == pb.ProcessResponse(requeue_after_seconds=60)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("bad value"), grpc.StatusCode.UNKNOWN, "ValueError: bad value"),
        (InfrastructureError("no route"), grpc.StatusCode.UNAVAILABLE, "no route"),
        (SystemExit(3), grpc.StatusCode.UNKNOWN, "SystemExit: 3"),
        (asyncio.CancelledError("by itself"), grpc.StatusCode.UNKNOWN, "CancelledError: by itself"),
        (TimeoutError(), grpc.StatusCode.UNKNOWN, "TimeoutError"),
    ],
    ids=["error", "infrastructure", "exit", "cancelled", "timeout"],
)
@on_loop
async def test_an_error_fails_the_attempt_and_may_be_retried(
    error: BaseException, code: grpc.StatusCode, text: str
) -> None:
    seen = await error_of(raising(error))

    assert (seen.code(), seen.details()) == (code, text)
    assert marked(seen) is None
    assert from_reconciler(seen) is (code is grpc.StatusCode.UNAVAILABLE)


@on_loop
async def test_a_final_error_says_so_in_its_details() -> None:
    error = await error_of(raising(NonRetriableError("no such bucket")))

    status = Status.FromString(trailers_of(error)[DETAILS_TRAILER])
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "no such bucket")
    assert (status.code, status.message) == (2, "no such bucket")
    assert status.details[0].type_url == "type.googleapis.com/chainguard.workqueue.NoRetryDetails"
    final = marked(error)
    assert isinstance(final, NonRetriableError)
    assert final is not None
    assert final.reason == "no such bucket"


@pytest.mark.parametrize("letter", ["x", "é", "🦊", "\n"], ids=["ascii", "latin", "emoji", "newline"])
@on_loop
async def test_an_error_of_any_length_arrives_cut(letter: str) -> None:
    error = await error_of(raising(NonRetriableError(letter * 100_000)))

    final = marked(error)
    assert isinstance(final, NonRetriableError)
    assert final is not None
    assert 1018 < len(final.reason.encode()) <= 1024
    assert final.reason.startswith(letter * 200)


@on_loop
async def test_what_is_no_outcome_fails_the_attempt() -> None:
    async def callback(key: str, attempt: Attempt) -> str:
        return "done"

    error = await error_of(callback)

    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "a callback returns None, RequeueAfter" in (error.details() or "")


@on_loop
async def test_more_keys_than_an_answer_holds_fail_the_attempt_in_words(caplog: pytest.LogCaptureFixture) -> None:
    asked = QueueKeys(*(QueueKey(f"child-{number}", payload=b"x" * 200_000) for number in range(30)))

    async def returns(key: str, attempt: Attempt) -> QueueKeys:
        return asked

    for callback in (returns, raising(asked)):
        error = await error_of(callback)
        assert error.code() is grpc.StatusCode.UNKNOWN
        assert "30 keys does not fit into one answer of 4194304 bytes: ask for fewer" in (error.details() or "")
    assert {(record.name, record.exc_info) for record in caplog.records} == {("workqueue.rpc.reconciler", None)}


@on_loop
async def test_an_outage_that_the_callback_met_itself_is_told_as_one() -> None:
    async def callback(key: str, attempt: Attempt) -> None:
        async with serve(raising(ValueError()), port=0) as other:  # type: ignore[arg-type]
            pass
        async with stub_of(other) as stub:
            await stub.Process(pb.ProcessRequest(key="k"))

    error = await error_of(callback)

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert from_reconciler(error)


@on_loop
async def test_a_caller_who_leaves_cancels_the_callback_and_tells_its_attempt() -> None:
    started, lost = asyncio.Event(), asyncio.Event()

    async def callback(key: str, attempt: Attempt) -> None:
        attempt.lost.subscribe(lost.set)
        started.set()
        await asyncio.Event().wait()

    async with serve(callback, port=0) as server, stub_of(server) as stub:
        call = asyncio.ensure_future(stub.Process(pb.ProcessRequest(key="k")))
        await started.wait()
        call.cancel()
        await lost.wait()


@on_loop
async def test_a_thread_whose_caller_left_is_told() -> None:
    loop, started, told = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def callback(key: str, attempt: Attempt) -> None:
        loop.call_soon_threadsafe(started.set)
        attempt.lost.wait()
        loop.call_soon_threadsafe(told.set)

    async with serve(callback, port=0) as server, stub_of(server) as stub:
        call = asyncio.ensure_future(stub.Process(pb.ProcessRequest(key="k")))
        await started.wait()
        call.cancel()
        await told.wait()


@on_loop
async def test_a_reconciler_has_no_key_states() -> None:
    async with serve(raising(ValueError()), port=0) as server, stub_of(server) as stub:  # type: ignore[arg-type]
        error = await refused(stub.GetKeyState(pb.GetKeyStateRequest(key="k")))

    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@on_loop
async def test_an_unexpected_error_leaves_its_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    await error_of(raising(ValueError("bad value")))

    (record,) = [record for record in caplog.records if record.name == "workqueue.rpc.reconciler"]
    assert record.exc_info is not None
    assert (record.getMessage(), vars(record)["key"]) == ("key 'k' failed: ValueError: bad value", "k")
