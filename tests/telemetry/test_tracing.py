"""Traces: an attempt's span leads back to the enqueue that asked for it; no key is ever refused for tracing's sake."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, TraceState

from tests.support.processes import python
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.interface import KeyState, KeyStatus
from workqueue.optional import LeaseRequest
from workqueue.options import MAX_META_BYTES, Options
from workqueue.telemetry.tracing import attempt_tracer, traced_meta, with_trace

ATTEMPT = KeyState("key", KeyStatus.IN_PROGRESS)
_EXPORTER = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def provider() -> None:
    """OpenTelemetry takes one provider for a process, ever; a test process has at most this one."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_EXPORTER))
    trace.set_tracer_provider(provider)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    _EXPORTER.clear()
    yield _EXPORTER
    _EXPORTER.clear()


def only(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = [span for span in spans.get_finished_spans() if span.name == name]
    return span


async def enqueued_and_attempted() -> None:
    async with MemoryQueue("builds") as queue:
        with trace.get_tracer("shop").start_as_current_span("order placed"):
            await queue.queue("order/7", with_trace(Options(priority=5, payload=b"12345")))
        (owned,) = (await queue.lease(LeaseRequest(limit=1, concurrency=1))).started
        with attempt_tracer("builds").attempt(owned.key, owned) as span:
            trace.get_tracer("shop").start_span("pack").end()
            span.ended("completed")


async def test_an_attempt_is_linked_to_the_span_that_enqueued_its_key(spans: InMemorySpanExporter) -> None:
    await enqueued_and_attempted()

    enqueue, attempt = only(spans, "order placed"), only(spans, "process builds")
    assert [link.context.span_id for link in attempt.links] == [enqueue.context.span_id]
    assert attempt.links[0].context.is_remote
    assert attempt.context.trace_id != enqueue.context.trace_id
    assert attempt.parent is None


async def test_what_the_callback_does_belongs_to_its_attempt(spans: InMemorySpanExporter) -> None:
    await enqueued_and_attempted()

    parent = only(spans, "pack").parent
    assert parent is not None
    assert parent.span_id == only(spans, "process builds").context.span_id


async def test_an_attempt_says_what_it_was(spans: InMemorySpanExporter) -> None:
    await enqueued_and_attempted()

    span = only(spans, "process builds")
    assert (span.kind, span.status.status_code) == (SpanKind.CONSUMER, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "messaging.system": "workqueue",
        "messaging.destination.name": "builds",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": "order/7",
        "messaging.message.body.size": 5,
        "workqueue.attempts": 1,
        "workqueue.priority": 5,
        "workqueue.outcome": "completed",
    }


def test_a_failed_attempt_carries_its_error(spans: InMemorySpanExporter) -> None:
    with attempt_tracer("q").attempt("key", ATTEMPT) as span:
        span.ended("retried", ConnectionError("the shop is closed"))

    failed = only(spans, "process q")
    attributes = failed.attributes or {}
    assert (attributes["workqueue.outcome"], attributes["error.type"]) == ("retried", "ConnectionError")
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "the shop is closed")
    assert [event.name for event in failed.events] == ["exception"]


@pytest.mark.parametrize("outcome", ["released", "lost"])
def test_an_attempt_that_was_cut_short_is_no_error(outcome: str, spans: InMemorySpanExporter) -> None:
    with attempt_tracer("q").attempt("key", ATTEMPT) as span:
        span.ended(outcome, asyncio.CancelledError())

    assert only(spans, "process q").status.status_code is StatusCode.UNSET


def test_an_error_that_cannot_be_printed_still_ends_its_span(spans: InMemorySpanExporter) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    with attempt_tracer("q").attempt("key", ATTEMPT) as span:
        span.ended("retried", Unprintable())

    assert only(spans, "process q").status.status_code is StatusCode.ERROR


def test_a_store_error_during_an_attempt_ends_its_span(spans: InMemorySpanExporter) -> None:
    with pytest.raises(OSError, match="disk"), attempt_tracer("q").attempt("key", ATTEMPT):
        raise OSError("disk")

    assert only(spans, "process q").status.status_code is StatusCode.ERROR


def test_a_cancelled_attempt_is_no_error(spans: InMemorySpanExporter) -> None:
    with pytest.raises(asyncio.CancelledError), attempt_tracer("q").attempt("key", ATTEMPT):
        raise asyncio.CancelledError

    assert only(spans, "process q").status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é" * 300])
def test_a_malformed_traceparent_is_no_link(traceparent: str, spans: InMemorySpanExporter) -> None:
    with attempt_tracer("q").attempt("key", replace(ATTEMPT, meta={"traceparent": traceparent})):
        pass

    assert only(spans, "process q").links == ()


def test_an_enqueue_outside_any_span_is_left_as_it_is() -> None:
    options = Options(meta={"tenant": "a"})

    assert with_trace(options) is options


def test_the_newest_enqueue_is_the_one_that_is_linked() -> None:
    with trace.get_tracer("shop").start_as_current_span("second") as span:
        meta = with_trace(Options(meta={"traceparent": "stale", "tracestate": "stale", "tenant": "a"})).meta

    assert meta == {"tenant": "a", "traceparent": meta["traceparent"]}
    assert f"{span.get_span_context().span_id:016x}" in meta["traceparent"]


def state(size: int) -> TraceState:
    return TraceState([("vendor", "x" * size)])


def meta_sizes(room: int) -> set[str]:
    """What tracing adds to a meta with `room` bytes left."""
    context = trace.SpanContext(1, 2, False, trace_state=state(100))
    full = {"a": "x" * (MAX_META_BYTES - room - 1)}
    with trace.use_span(trace.NonRecordingSpan(context)):
        return set(Options(meta=traced_meta(full)).meta) - {"a"}


@pytest.mark.parametrize(
    ("room", "added"),
    [(200, {"traceparent", "tracestate"}), (66, {"traceparent"}), (65, set()), (0, set())],
)
def test_tracing_takes_only_the_room_that_meta_has_left(room: int, added: set[str]) -> None:
    assert meta_sizes(room) == added


def run(program: str) -> str:
    return python("-c", program).out.strip()


USE = """
from workqueue.interface import KeyState, KeyStatus
from workqueue.options import Options
from workqueue.telemetry.tracing import attempt_tracer, with_trace
options = Options()
with attempt_tracer("q").attempt("key", KeyState("key", KeyStatus.IN_PROGRESS)) as span:
    span.ended("retried", ValueError("no"))
print(with_trace(options) is options, type(span).__name__)
"""


def test_without_the_package_tracing_does_nothing() -> None:
    assert run("import sys; sys.modules['opentelemetry'] = None\n" + USE) == "True _NoSpan"


def test_without_a_provider_tracing_does_nothing() -> None:
    assert run(USE) == "True _NoSpan"
