"""OpenTelemetry traces, when its API is installed: from the enqueue to every attempt, by links.

An enqueue and an attempt are often hours apart and many enqueues may share one attempt, so that an attempt's span is
not a child of the enqueuer's but linked to it, as the messaging conventions of OpenTelemetry ask for. The enqueuer's
context rides in the key's meta in W3C form (`traceparent`, `tracestate`); the newest enqueue wins.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from workqueue.options import MAX_META_BYTES, Options

try:
    from opentelemetry import trace
    from opentelemetry.context import get_current
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # without the [otel] extra everything here does nothing
    trace = None  # type: ignore[assignment]

__all__ = ["NO_TRACER", "AttemptSpan", "AttemptTracer", "TracedKey", "attempt_tracer", "traced_meta", "with_trace"]

log = logging.getLogger(__name__)

_NO_FAULT = ("released", "lost")


class TracedKey(Protocol):
    """What a span says of an attempt: an `Attempt` or an owned key."""

    @property
    def priority(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def payload(self) -> bytes | None: ...
    @property
    def meta(self) -> Mapping[str, str]: ...


class AttemptSpan(AbstractContextManager["AttemptSpan"], Protocol):
    """The span of one attempt, current inside its `with` block."""

    def ended(self, outcome: str, error: BaseException | None = None) -> None:
        """Say what became of the attempt; an `error` makes it a failed one and is recorded with its traceback.

        An attempt that we cut short, or whose lease was lost, is not at fault: then the error is left out.
        """


class AttemptTracer(Protocol):
    """Makes the spans of a queue's attempts."""

    def attempt(self, key: str, attempt: TracedKey) -> AttemptSpan:
        """The span of an attempt that starts now, linked to its enqueuer's: `with tracer.attempt(…) as span:`."""


def with_trace(options: Options) -> Options:
    """`options` with the current span in its meta, if there is one; called where a producer enqueues."""
    meta = traced_meta(options.meta)
    return options if meta is options.meta else replace(options, meta=meta)


def traced_meta(meta: Mapping[str, str]) -> Mapping[str, str]:
    """`meta` with the current span in it; itself if there is none, or if meta has no room: tracing refuses no key."""
    if trace is None or not get_current():  # an empty context is found out faster than the lack of a span
        return meta
    if not trace.get_current_span().get_span_context().is_valid:
        return meta
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    kept = {name: value for name, value in meta.items() if name not in ("traceparent", "tracestate")}
    for added in (carrier, {"traceparent": carrier["traceparent"]}):
        if _size(kept) + _size(added) <= MAX_META_BYTES:
            return {**kept, **added}
    return meta


def attempt_tracer(queue_name: str) -> AttemptTracer:
    """Spans for the attempts of `queue_name`, or nothing at next to no cost while no tracer provider is configured.

    Ask again for each round or loop: a provider that was configured meanwhile is found then.
    """
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return NO_TRACER
    return _Tracer(queue_name)


class _NoSpan:
    """The tracer and the span of an untraced attempt."""

    def attempt(self, key: str, attempt: TracedKey) -> AttemptSpan:
        return self

    def ended(self, outcome: str, error: BaseException | None = None) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


NO_TRACER: AttemptTracer = _NoSpan()
"""What `attempt_tracer` answers while tracing is off."""


class _Tracer:
    def __init__(self, queue_name: str) -> None:
        self._queue_name = queue_name
        self._tracer = trace.get_tracer("workqueue")

    def attempt(self, key: str, attempt: TracedKey) -> AttemptSpan:
        span = self._tracer.start_span(
            f"process {self._queue_name}",
            kind=trace.SpanKind.CONSUMER,
            links=_links(attempt.meta),
            attributes={
                "messaging.system": "workqueue",
                "messaging.destination.name": self._queue_name,
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.message.id": key,
                "messaging.message.body.size": len(attempt.payload or b""),
                "workqueue.attempts": attempt.attempts,
                "workqueue.priority": attempt.priority,
            },
        )
        return _Span(span)


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._current = trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False)

    def ended(self, outcome: str, error: BaseException | None = None) -> None:
        self._span.set_attribute("workqueue.outcome", outcome)
        if error is not None and outcome not in _NO_FAULT:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._span.set_attribute("error.type", type(error).__qualname__)
        try:
            self._span.record_exception(error)
            description = str(error)
        except Exception:  # a broken __str__ must not keep its key from being settled
            log.debug("the error of an attempt could not be recorded in its span", exc_info=True)
            description = type(error).__qualname__
        self._span.set_status(trace.Status(trace.StatusCode.ERROR, description))

    def __enter__(self) -> Self:
        self._current.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._fail(error)
        self._current.__exit__(None, None, None)


def _links(meta: Mapping[str, str]) -> list[trace.Link]:
    if "traceparent" not in meta:
        return []
    sender = trace.get_current_span(TraceContextTextMapPropagator().extract(meta)).get_span_context()
    return [trace.Link(sender)] if sender.is_valid else []


def _size(meta: Mapping[str, str]) -> int:
    return sum(len(name) + len(value.encode()) for name, value in meta.items())
