"""What KEDA is told: the keys that dispatchers can have in hand, whoever asks, and never a guess."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.support.grpc import on_loop
from tests.support.programs import serving, workqueue
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import InvalidSettingError, StoreUnavailableError
from workqueue.optional import Counts, LeaseRequest
from workqueue.rpc.pb import externalscaler_pb2 as pb
from workqueue.rpc.pb.externalscaler_pb2_grpc import ExternalScalerStub
from workqueue.rpc.scaler import scale, size_of
from workqueue.testing import FakeClock, FlakyQueue
from workqueue.throttle import Configuration

if TYPE_CHECKING:
    from workqueue.rpc.pb.externalscaler_pb2_grpc import ExternalScalerAsyncStub


class Keda:
    """Asks as KEDA's operator does."""

    def __init__(self, stub: ExternalScalerAsyncStub, clock: FakeClock) -> None:
        self._stub = stub
        self.clock = clock

    async def value(self, **metadata: str) -> int:
        self.clock.advance(timedelta(seconds=2))  # a size may be a second old
        request = pb.GetMetricsRequest(scaledObjectRef=reference(metadata), metricName="any")
        [value] = (await self._stub.GetMetrics(request, timeout=10)).metricValues
        assert value.metricValueFloat == value.metricValue
        return value.metricValue

    async def active(self, **metadata: str) -> bool:
        self.clock.advance(timedelta(seconds=2))
        return (await self._stub.IsActive(reference(metadata), timeout=10)).result

    async def spec(self, **metadata: str) -> tuple[str, int, float]:
        [spec] = (await self._stub.GetMetricSpec(reference(metadata), timeout=10)).metricSpecs
        return spec.metricName, spec.targetSize, spec.targetSizeFloat

    def changes(self) -> AsyncIterator[pb.IsActiveResponse]:
        return self._stub.StreamIsActive(reference({}), timeout=30).__aiter__()


def reference(metadata: dict[str, str]) -> pb.ScaledObjectRef:
    return pb.ScaledObjectRef(name="dispatchers", namespace="prod", scalerMetadata=metadata)


@asynccontextmanager
async def asked(**queues: MemoryQueue | FlakyQueue) -> AsyncIterator[Keda]:
    clock = FakeClock()
    server = scale(queues, clock=clock)
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Keda(ExternalScalerStub(channel), clock)


@pytest.mark.parametrize(
    ("counts", "configuration", "size"),
    [
        (Counts(), Configuration(), 0),
        (Counts(queued=5, in_progress=3), Configuration(), 8),
        (Counts(queued=5, in_progress=3, twins=2, not_before=100, dead_lettered=9), Configuration(), 8),
        (Counts(queued=500, in_progress=3), Configuration(concurrency=20), 20),
        (Counts(queued=5, in_progress=3), Configuration(paused=True), 3),
    ],
)
def test_a_size_is_what_can_be_in_hand(counts: Counts, configuration: Configuration, size: int) -> None:
    assert size_of(counts, configuration) == size


@on_loop
async def test_a_busy_queue_keeps_its_pods_until_the_last_key_is_done() -> None:
    async with MemoryQueue() as queue, asked(default=queue) as keda:
        assert (await keda.value(), await keda.active()) == (0, False)
        await queue.queue("a")
        await queue.queue("b")
        assert (await keda.value(), await keda.active()) == (2, True)
        started = (await queue.lease(LeaseRequest(10, 10))).started
        assert (await keda.value(), await keda.active()) == (2, True)
        for owned in started:
            await owned.complete()
        assert (await keda.value(), await keda.active()) == (0, False)


@on_loop
async def test_a_limit_that_was_lowered_and_a_pause_are_seen_at_the_next_question() -> None:
    async with MemoryQueue() as queue, asked(default=queue) as keda:
        for number in range(50):
            await queue.queue(f"k{number}")
        assert await keda.value() == 50
        await queue.configure(Configuration(concurrency=7))
        assert await keda.value() == 7
        await queue.configure(Configuration(paused=True))
        assert await keda.active() is False


@on_loop
async def test_a_stream_says_what_is_now_and_then_every_change() -> None:
    async with MemoryQueue() as queue, asked(default=queue) as keda:
        changes = keda.changes()
        assert (await anext(changes)).result is False
        await queue.queue("a")
        change = asyncio.ensure_future(anext(changes))
        while not change.done():
            await keda.value()  # which moves the clock
        assert change.result().result is True


@on_loop
async def test_one_scaler_serves_several_queues_by_name() -> None:
    async with MemoryQueue("a") as a, MemoryQueue("b") as b, asked(a=a, b=b) as keda:
        await b.queue("k")
        assert (await keda.value(queue="a"), await keda.value(queue="b")) == (0, 1)
        assert await keda.spec(queue="b") == ("workqueue-b", 10, 10.0)
        assert await keda.spec(queue="a", keysPerReplica="2.5") == ("workqueue-a", 3, 2.5)


@pytest.mark.parametrize(
    "metadata",
    [{}, {"queue": "c"}, {"queue": "a", "keysPerReplica": "0"}, {"queue": "a", "keysPerReplica": "many"}],
    ids=str,
)
async def test_metadata_that_name_no_queue_or_no_number_are_refused(metadata: dict[str, str]) -> None:
    async with MemoryQueue("a") as a, MemoryQueue("b") as b, asked(a=a, b=b) as keda:
        with pytest.raises(grpc.aio.AioRpcError, match="it takes") as failed:
            await keda.spec(**metadata)
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@on_loop
async def test_a_queue_that_cannot_be_counted_has_no_size_instead_of_zero() -> None:
    async with MemoryQueue() as memory:
        queue = FlakyQueue(memory)
        queue.fail("counts", StoreUnavailableError("down"), times=1)
        async with asked(default=queue) as keda:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await keda.value()
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
            assert await keda.value() == 0


@on_loop
async def test_many_questions_at_once_count_the_queue_once() -> None:
    async with MemoryQueue() as memory:
        queue = FlakyQueue(memory)
        async with asked(default=queue) as keda:
            request = pb.GetMetricsRequest(scaledObjectRef=reference({}))
            for _ in range(20):
                await keda._stub.GetMetrics(request, timeout=10)
            assert [name for name, _ in queue.calls] == ["counts", "configuration"]


def test_a_scaler_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidSettingError):
        scale({})


def test_the_program_tells_keda_of_every_queue_that_it_was_given(tmp_path: object) -> None:
    urls = {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("a", "b")}
    workqueue("enqueue", "k1", "k2", "--queue", urls["b"])
    given = [argument for name, url in urls.items() for argument in ("--queues", f"{name}={url}")]
    with serving("workqueue.cli", "scaler", *given, "--grpc-port", "0", "--http-port", "0") as it:
        with grpc.insecure_channel(f"127.0.0.1:{it.port('listening on')}") as channel:
            request = pb.GetMetricsRequest(scaledObjectRef=reference({"queue": "b"}))
            [value] = ExternalScalerStub(channel).GetMetrics(request, timeout=30).metricValues
        assert value.metricValue == 2
        it.tell()
        assert it.ended() == 0


def test_the_program_is_ready_to_tell_of_the_one_queue_that_it_was_given(tmp_path: object) -> None:
    url = f"sqlite:///{tmp_path}/a.db?name=builds"
    workqueue("enqueue", "k1", "--queue", url)
    with serving("workqueue.cli", "scaler", "--queue", url, "--grpc-port", "0", "--http-port", "0") as it:
        with grpc.insecure_channel(f"127.0.0.1:{it.port('listening on')}") as channel:
            [spec] = ExternalScalerStub(channel).GetMetricSpec(reference({}), timeout=30).metricSpecs
        assert spec.metricName == "workqueue-builds"


@pytest.mark.parametrize("flags", [["--queues", "a=sqlite:///a", "--queues", "a=sqlite:///b"], ["--queues", "a=what"]])
def test_queues_that_are_none_stop_the_program_at_its_start(flags: list[str]) -> None:
    ended = workqueue("scaler", *flags)

    assert ended.code == 2
    assert ended.err.count("\n") == 1
