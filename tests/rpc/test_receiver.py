"""The receiver and its client, over real connections: what is stored, what is refused, and what is tried again."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from tests.support.dispatching import opened
from tests.support.grpc import ONCE, QUICK, FailingQueue, client_of, nonsense, on_loop, received, refused, stub_of
from workqueue import InvalidKeyError, InvalidOptionsError, KeyNotFoundError, KeyState, KeyStatus, Options
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import (
    InvalidSettingError,
    PayloadTooLargeError,
    QueueClosedError,
    StoreError,
    StoreUnavailableError,
    StoreUnusableError,
    UnsupportedError,
    WorkQueueError,
)
from workqueue.rpc.client import Retries, connect
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.receiver import Receiver, receive
from workqueue.testing import FakeClock

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
INT64 = 2**63 - 1
LARGE = Options(payload=b"x" * (5 * 1024 * 1024))


@on_loop
async def test_an_enqueue_arrives_with_everything_it_says() -> None:
    queue = opened(MemoryQueue())
    async with received(queue) as client:
        await client.queue("résumé/1", Options(priority=7, payload=b"\x00\xff", meta={"a": "b"}))

    state = await queue.get("résumé/1")
    assert (state.status, state.priority, state.payload) == (KeyStatus.QUEUED, 7, b"\x00\xff")
    assert dict(state.meta) == {"a": "b"}
    assert state.not_before is None


@on_loop
async def test_a_delay_counts_from_when_the_receiver_gets_it() -> None:
    queue = opened(MemoryQueue(clock=FakeClock(1_750_000_000_000_000)))
    async with received(queue) as client:
        await client.queue("k", Options(not_before=datetime.now(UTC) + timedelta(minutes=10)))

    assert (await queue.get("k")).not_before == datetime.fromtimestamp(1_750_000_600, UTC)


@on_loop
async def test_the_state_of_a_key_is_told() -> None:
    queue = opened(MemoryQueue())
    async with received(queue) as client:
        await client.queue("k", Options(priority=3))

        state = await client.get("k")

    assert (state.key, state.status, state.priority, state.attempts) == ("k", KeyStatus.QUEUED, 3, 0)
    assert state.queued_time is not None
    assert state.not_before is None


@on_loop
async def test_an_unknown_key_is_not_found() -> None:
    async with received(opened(MemoryQueue())) as client:
        with pytest.raises(KeyNotFoundError, match="nobody"):
            await client.get("nobody")


@pytest.mark.parametrize(
    "request_",
    [
        pb.ProcessRequest(),
        pb.ProcessRequest(key="x" * 1001),
        pb.ProcessRequest(key="a\nb"),
        pb.ProcessRequest(key="k", priority=2**53),
        pb.ProcessRequest(key="k", priority=-INT64 - 1),
        pb.ProcessRequest(key="k", payload=b"x" * (256 * 1024 + 1)),
        pb.ProcessRequest(key="k", meta={"a b": "c"}),
        pb.ProcessRequest(key="k", meta={"a": "x" * 1025}),
    ],
    ids=["empty", "long", "control", "priority", "lowest", "payload", "meta name", "meta size"],
)
@on_loop
async def test_what_cannot_be_stored_is_an_invalid_argument_and_stores_nothing(request_: pb.ProcessRequest) -> None:
    queue = opened(MemoryQueue())
    async with receive(queue, port=0) as server, stub_of(server) as stub:
        error = await refused(stub.Process(request_))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await queue.counts()).queued == 0


@pytest.mark.parametrize("delay", [0, -1, -INT64 - 1])
@on_loop
async def test_a_delay_that_is_not_positive_starts_at_once(delay: int) -> None:
    queue = opened(MemoryQueue())
    async with receive(queue, port=0) as server, stub_of(server) as stub:
        assert await stub.Process(pb.ProcessRequest(key="k", delay_seconds=delay)) == pb.ProcessResponse()

    assert (await queue.counts()).queued == 1


@on_loop
async def test_an_invalid_enqueue_is_refused_before_it_travels() -> None:
    client = connect("grpc://127.0.0.1:1")

    with pytest.raises(InvalidKeyError):
        await client.queue("")
    with pytest.raises(UnsupportedError, match="floor"):
        await client.queue_many([("k", Options(not_before=datetime.now(UTC), not_before_floor=True))])


@on_loop
async def test_the_receivers_limits_are_told_as_invalid_options() -> None:
    async with received(opened(MemoryQueue(max_payload=10))) as client:
        with pytest.raises(InvalidOptionsError, match="at most 10"):
            await client.queue("k", Options(payload=b"x" * 11))


@on_loop
async def test_a_request_too_large_to_look_at_is_an_error_that_is_not_retried() -> None:
    async with received(opened(MemoryQueue()), QUICK) as client:
        for enqueue in (client.queue("k", LARGE), client.queue_many([("k", LARGE)])):
            with pytest.raises(PayloadTooLargeError, match=r"a payload of 5242880 bytes .* store it elsewhere"):
                await enqueue


@on_loop
async def test_many_keys_are_stored_together() -> None:
    queue = opened(MemoryQueue())
    async with received(queue) as client:
        await client.queue_many((f"k{number}", Options(priority=number)) for number in range(500))
        await client.queue_many([])

    assert (await queue.counts()).queued == 500


@on_loop
async def test_of_many_keys_with_an_invalid_one_none_is_stored() -> None:
    queue = opened(MemoryQueue())
    async with received(queue) as client:
        with pytest.raises(InvalidKeyError):
            await client.queue_many([("good", Options()), ("bad\x00", Options())])

    assert (await queue.counts()).queued == 0


@on_loop
async def test_of_many_keys_the_first_error_is_raised_itself() -> None:
    async with received(opened(MemoryQueue(max_payload=1))) as client:
        with pytest.raises(InvalidOptionsError):
            await client.queue_many([("a", Options()), ("b", Options(payload=b"xx"))])


@pytest.mark.parametrize(
    ("error", "code", "seen"),
    [
        (StoreUnavailableError("disk full"), grpc.StatusCode.UNAVAILABLE, StoreUnavailableError),
        (StoreUnusableError("no database"), grpc.StatusCode.FAILED_PRECONDITION, StoreUnusableError),
        (QueueClosedError(), grpc.StatusCode.UNAVAILABLE, StoreUnavailableError),
        (StoreError("odd"), grpc.StatusCode.INTERNAL, StoreUnavailableError),
        (PayloadTooLargeError(), grpc.StatusCode.INVALID_ARGUMENT, InvalidOptionsError),
    ],
)
@on_loop
async def test_a_store_that_fails_is_told(
    error: WorkQueueError, code: grpc.StatusCode, seen: type[WorkQueueError]
) -> None:
    queue = opened(FailingQueue())
    queue.error = error
    async with receive(queue, port=0) as server, stub_of(server) as stub, client_of(server) as client:
        assert (await refused(stub.Process(pb.ProcessRequest(key="k")))).code() is code
        with pytest.raises(seen, match=str(error)):
            await client.queue("k")


@on_loop
async def test_an_enqueue_outlasts_an_outage_of_the_store() -> None:
    queue = opened(FailingQueue())
    queue.error = StoreUnavailableError("restarting")
    async with received(queue, QUICK) as client:
        enqueue = asyncio.create_task(client.queue("k"))
        asyncio.get_running_loop().call_later(0.05, setattr, queue, "error", None)
        await enqueue

    assert (await queue.get("k")).status is KeyStatus.QUEUED


@on_loop
async def test_an_enqueue_outlasts_a_restart_of_the_receiver() -> None:
    queue = opened(MemoryQueue())
    async with receive(queue, port=0) as first:
        port = first.port
    async with connect(f"grpc://127.0.0.1:{port}", retries=QUICK) as client:
        enqueue = asyncio.create_task(client.queue("k"))
        await asyncio.wait([enqueue], timeout=0.1)
        assert not enqueue.done()
        async with receive(queue, port=port):
            await enqueue

    assert (await queue.get("k")).status is KeyStatus.QUEUED


def test_tries_are_spread_further_and_further_apart() -> None:
    late = Retries(pause=timedelta(seconds=1), longest_pause=timedelta(seconds=5)).pauses(rand=lambda: 0.0)
    early = Retries(pause=timedelta(seconds=1), longest_pause=timedelta(seconds=5)).pauses(rand=lambda: 1.0)

    assert [next(late) for _ in range(5)] == [1, 2, 4, 5, 5]
    assert [next(early) for _ in range(5)] == [0.5, 1, 2, 2.5, 2.5]


@on_loop
async def test_a_receiver_that_hangs_is_given_up_after_a_while() -> None:
    class HangingQueue(MemoryQueue):
        async def queue(self, key: str, options: Options = Options()) -> None:
            await asyncio.Event().wait()

    retries = Retries(patience=timedelta(seconds=0.2), attempt=timedelta(seconds=0.1))
    async with received(HangingQueue(), retries) as client:
        with pytest.raises(StoreUnavailableError, match=r"DEADLINE_EXCEEDED|the store has not answered for"):
            await client.queue("k")


@pytest.mark.parametrize("method", ["Process", "GetKeyState"])
@on_loop
async def test_a_receiver_whose_store_hangs_says_so_before_its_caller_gives_up(method: str) -> None:
    class HangingQueue(MemoryQueue):
        async def queue(self, key: str, options: Options = Options()) -> None:
            await asyncio.Event().wait()

        async def get(self, key: str) -> KeyState:
            await asyncio.Event().wait()
            raise AssertionError

    request = pb.ProcessRequest(key="k") if method == "Process" else pb.GetKeyStateRequest(key="k")
    async with receive(HangingQueue(), port=0) as server, stub_of(server) as stub:
        error = await refused(getattr(stub, method)(request, timeout=2))

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    # Nine tenths of what is left of the caller's two seconds: on a busy machine the request has taken some of them.
    assert re.fullmatch(r"the store has not answered for [01]\.\d s", error.details() or "")


@on_loop
async def test_an_answer_that_cannot_be_read_is_an_error() -> None:
    async with nonsense() as address, connect(address, retries=ONCE) as client:
        for call in (client.queue("k"), client.get("k"), client.queue_many([("k", Options())])):
            with pytest.raises(StoreUnusableError, match="is no receiver: its answer cannot be read"):
                await call


@on_loop
async def test_a_bug_in_a_backend_is_logged_there_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    class BuggyQueue(MemoryQueue):
        async def queue(self, key: str, options: Options = Options()) -> None:
            raise RuntimeError("a secret")

    async with receive(BuggyQueue(), port=0) as server, stub_of(server) as stub:
        error = await refused(stub.Process(pb.ProcessRequest(key="k")))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (error.details() or "")
    assert "a secret" in caplog.text


@on_loop
async def test_a_trace_in_the_headers_stays_with_the_key() -> None:
    queue = opened(MemoryQueue())
    async with receive(queue, port=0) as server, stub_of(server) as stub:
        await stub.Process(pb.ProcessRequest(key="header"), metadata=(("traceparent", TRACE),))
        await stub.Process(pb.ProcessRequest(key="both", meta={"traceparent": "m"}), metadata=(("traceparent", TRACE),))

    assert (await queue.get("header")).meta == {"traceparent": TRACE}
    assert (await queue.get("both")).meta == {"traceparent": "m"}


@pytest.mark.parametrize("meta", [{}, {"a": "x" * 1000}], ids=["malformed", "no room"])
@on_loop
async def test_a_trace_that_is_malformed_or_does_not_fit_is_left_out(meta: dict[str, str]) -> None:
    queue = opened(MemoryQueue())
    header = TRACE if meta else "00-" + "z" * 5000
    async with receive(queue, port=0) as server, stub_of(server) as stub:
        await stub.Process(pb.ProcessRequest(key="k", meta=meta), metadata=(("traceparent", header),))

    assert (await queue.get("k")).meta == meta


@on_loop
async def test_a_client_that_is_not_open_says_so() -> None:
    client = connect("grpc://127.0.0.1:1", retries=ONCE)
    with pytest.raises(QueueClosedError, match="async with"):
        await client.queue("k")
    async with client:
        pass
    with pytest.raises(QueueClosedError):
        await client.get("k")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host:80",
        "ftp://host:80",
        "grpc://",
        "grpc://host",
        "grpc://:80",
        "grpc://host:0",
        "grpc://host:65536",
        "grpc://host:port",
        "grpc://host:80/path",
        "grpc://user@host:80",
        "https://host?x=1",
    ],
)
def test_what_is_no_address_is_refused_with_one_line(address: str) -> None:
    with pytest.raises(InvalidSettingError, match="it takes grpc://host:port") as caught:
        connect(address)

    assert "\n" not in str(caught.value)


@on_loop
async def test_a_host_that_nobody_knows_is_named() -> None:
    async with connect("grpc://nobody.invalid:80", retries=ONCE) as client:
        with pytest.raises(StoreUnavailableError, match=r"no address is known for the host nobody\.invalid"):
            await client.queue("k")


@on_loop
async def test_a_port_where_nobody_listens_is_named() -> None:
    async with receive(opened(MemoryQueue()), port=0) as server:
        port = server.port
    async with connect(f"grpc://127.0.0.1:{port}", retries=ONCE) as client:
        with pytest.raises(StoreUnavailableError, match=f"cannot connect to grpc://127.0.0.1:{port}: .*refused"):
            await client.queue("k")


@on_loop
async def test_a_server_that_is_no_receiver_is_told_from_one_that_is_down() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with connect(f"grpc://127.0.0.1:{port}", retries=QUICK) as client:
        with pytest.raises(StoreUnusableError, match="is no receiver"):
            await client.queue("k")
    await server.stop(None)


@on_loop
async def test_the_receiver_can_join_a_server_of_somebody_elses() -> None:
    from workqueue.rpc.pb.workqueue_pb2_grpc import add_WorkqueueServiceServicer_to_server

    queue, server = opened(MemoryQueue()), grpc.aio.server()
    add_WorkqueueServiceServicer_to_server(Receiver(queue), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with connect(f"grpc://127.0.0.1:{port}") as client:
        await client.queue("k")
    await server.stop(None)

    assert (await queue.get("k")).status is KeyStatus.QUEUED
