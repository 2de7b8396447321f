"""The background enqueuer over a receiver, a backend of three verbs and Redis; and the trace it carries."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from examples.three_verbs import Table, ThreeVerbs
from tests.support.dispatching import memory
from tests.support.grpc import received
from tests.support.redis import opened
from tests.support.sinks import failures
from workqueue import Options
from workqueue.clock import from_us
from workqueue.enqueuer import BackgroundEnqueuer, FailedKey

SPAN = SpanContext(0xABCDEF, 0x1234, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


async def test_a_receiver_takes_its_batches() -> None:
    queue, failed = memory(), list[FailedKey]()
    floor = Options(not_before=from_us(queue.clock.wall_us()), not_before_floor=True)
    async with received(queue) as client:
        async with BackgroundEnqueuer(client, on_error=failed.append) as enqueuer:
            for number in range(150):
                await enqueuer.put(f"key-{number}", Options(priority=number))
            await enqueuer.put("floored", floor)
        assert (await queue.counts()).queued == 150
    assert failures(failed) == [("floored", "UnsupportedError")], "what a request cannot carry fails alone"


async def test_a_backend_of_three_verbs_will_do() -> None:
    async with ThreeVerbs(Table()) as queue, BackgroundEnqueuer(queue) as enqueuer:
        await enqueuer.put("a")
        await enqueuer.put("b")
        await enqueuer.close()
        assert [entry.key for entry in (await queue.enumerate()).queued] == ["a", "b"]


async def test_a_thousand_keys_reach_redis_each_once() -> None:
    async with opened() as queue:
        async with BackgroundEnqueuer(queue) as enqueuer:
            for number in range(5_000):
                await enqueuer.put(f"key-{number % 1000}")
        counted = await queue.counts()
        assert counted.queued == 1000
        assert enqueuer.metrics.sent + enqueuer.metrics.merged == 5_000


async def test_the_trace_of_the_newest_put_goes_with_the_key() -> None:
    queue = memory()
    async with BackgroundEnqueuer(queue) as enqueuer:
        await enqueuer.put("a", Options(meta={"team": "web"}))
        with trace.use_span(NonRecordingSpan(SPAN)):
            await enqueuer.put("a")
        await enqueuer.close()
        meta = (await queue.get("a")).meta
    assert meta == {"team": "web", "traceparent": f"00-{SPAN.trace_id:032x}-{SPAN.span_id:016x}-01"}
