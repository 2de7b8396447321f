"""What counting costs: nanoseconds for each update of a key's cycle, beside single updates of prometheus_client.

`python -m benchmarks.metrics`
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable

import prometheus_client

from workqueue.backends.memory.backend import MemoryQueue
from workqueue.handles import Owned
from workqueue.lease import Lease
from workqueue.metrics import DispatchMetrics
from workqueue.options import Options
from workqueue.rules import Entry
from workqueue.telemetry.exposition import Exposition
from workqueue.telemetry.tracing import attempt_tracer, with_trace

NOW = 1_750_000_000_000_000
QUEUE = MemoryQueue()
METRICS, DISPATCH = QUEUE.metrics, DispatchMetrics.of(QUEUE)
ENTRY = Entry("key", 150, 1, NOW - 50_000, NOW - 50_000)
DELAYED = Entry("key", 150, 1, NOW - 50_000, NOW - 50_000, NOW - 20_000)
OWNED = Owned(QUEUE, ENTRY, Lease("key", "token"))
TRACER = attempt_tracer("q")


def cycle() -> None:
    METRICS.enqueued(0, deduped=False)
    METRICS.started(ENTRY, NOW)
    DISPATCH.began([OWNED], 1_000, NOW)
    DISPATCH.settled("completed", OWNED, 31_000)


def retried() -> None:
    DISPATCH.began([OWNED], 1_000, NOW)
    DISPATCH.settled("retried", OWNED, 31_000)


def completed() -> None:
    DISPATCH.began([OWNED], 1_000, NOW)
    DISPATCH.settled("completed", OWNED, 31_000)


def traced() -> None:
    with TRACER.attempt("key", OWNED) as span:
        span.ended("completed")


def updates() -> dict[str, Callable[[], object]]:
    registry = prometheus_client.CollectorRegistry()
    counter = prometheus_client.Counter("c", "c", ["queue"], registry=registry).labels("q")
    histogram = prometheus_client.Histogram("h", "h", ["queue"], registry=registry).labels("q")
    options = Options()
    return {
        "a key's whole cycle": cycle,
        "  enqueued": lambda: METRICS.enqueued(0, deduped=False),
        "  started": lambda: METRICS.started(ENTRY, NOW),
        "  started, with a not-before": lambda: METRICS.started(DELAYED, NOW),
        "  began, then settled as completed": completed,
        "  began, then settled as retried": retried,
        "tracing without a provider: attempt": traced,
        "tracing without a provider: enqueue": lambda: with_trace(options),
        "prometheus_client: one counter": counter.inc,
        "prometheus_client: one histogram": lambda: histogram.observe(0.03),
    }


def nanoseconds(update: Callable[[], object], number: int = 20_000, repeat: int = 15) -> float:
    """The best of several runs, the cost of an empty call taken off."""

    def best(call: Callable[[], object]) -> float:
        return min(timeit.repeat(call, number=number, repeat=repeat, timer=time.process_time)) / number * 1e9

    return best(update) - best(lambda: None)


def main() -> None:
    for name, update in updates().items():
        print(f"{name:<38} {nanoseconds(update):7.0f} ns")
    exposition = Exposition(queues=[METRICS], dispatchers=[DISPATCH])
    print(f"{'one scrape':<38} {nanoseconds(exposition.render, 20, 5) / 1000:7.0f} us")


if __name__ == "__main__":
    main()
