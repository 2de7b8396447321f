"""Traces through a dispatcher: a span for each attempt, around its callback, with what became of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.processes import python

# In a process of its own, since OpenTelemetry takes one provider for a process, ever.
PROGRAM = """
import asyncio, json
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import dispatcher
from tests.support.dispatching import opened
from workqueue import Options, QueueKey, QueueKeys
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.telemetry.tracing import with_trace

exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))

async def reconcile(key, attempt):
    with trace.get_tracer("test").start_as_current_span("inside " + key):
        await asyncio.sleep(0)
    if key == "failing":
        raise ValueError("no")
    if key == "asking":
        return QueueKeys(QueueKey("asked for"))

async def main():
    queue = opened(MemoryQueue())
    with trace.get_tracer("test").start_as_current_span("enqueue"):
        for key in ("asking", "failing"):
            await queue.queue(key, with_trace(Options()))
    await dispatcher.handle(queue, callback=reconcile)
    await dispatcher.handle(queue, callback=reconcile)

asyncio.run(main())
print(json.dumps([json.loads(span.to_json()) for span in exporter.get_finished_spans()]))
"""


@pytest.fixture(scope="module")
def spans() -> list[dict[str, Any]]:
    return python("-c", PROGRAM).json  # type: ignore[no-any-return]


def attempt_of(spans: list[dict[str, Any]], key: str) -> dict[str, Any]:
    (span,) = [span for span in spans if span["attributes"].get("messaging.message.id") == key]
    return span


def named(spans: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (span,) = [span for span in spans if span["name"] == name]
    return span


def test_every_attempt_has_a_span_that_says_what_became_of_it(spans: list[dict[str, Any]]) -> None:
    outcomes = {key: attempt_of(spans, key)["attributes"]["workqueue.outcome"] for key in ("asking", "failing")}

    assert outcomes == {"asking": "completed", "failing": "retried"}


def test_a_failed_attempt_is_a_failed_span_with_the_error_in_it(spans: list[dict[str, Any]]) -> None:
    failed = attempt_of(spans, "failing")

    assert failed["status"]["status_code"] == "ERROR"
    assert failed["events"][0]["attributes"]["exception.type"] == "ValueError"


def test_what_a_callback_does_is_inside_its_attempt(spans: list[dict[str, Any]]) -> None:
    assert named(spans, "inside asking")["parent_id"] == attempt_of(spans, "asking")["context"]["span_id"]


def test_an_attempt_is_linked_to_its_enqueue_and_a_key_asked_for_to_the_attempt_that_asked(
    spans: list[dict[str, Any]],
) -> None:
    links = {key: attempt_of(spans, key)["links"][0]["context"]["span_id"] for key in ("asking", "asked for")}

    assert links == {
        "asking": named(spans, "enqueue")["context"]["span_id"],
        "asked for": attempt_of(spans, "asking")["context"]["span_id"],
    }
