"""What a scrape shows. The text in golden/metrics.txt is the contract that dashboards and alerts stand on.

`python -m tests.telemetry.test_exposition` writes the golden text anew; look at the difference before you commit it.
"""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import aiohttp
import prometheus_client
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from dispatcher.relay.metrics import RelayMetrics
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.enqueuer import EnqueuerMetrics
from workqueue.handles import Owned
from workqueue.lease import Lease
from workqueue.metric_table import METRICS
from workqueue.metrics import DispatchMetrics, QueueMetrics
from workqueue.optional import Counts, LeaseRequest
from workqueue.options import Options
from workqueue.rules import Entry
from workqueue.sources.schedules import ScheduleMetrics
from workqueue.sources.sqs import SQSMetrics
from workqueue.telemetry.exposition import Exposition, Identity, identity
from workqueue.telemetry.gauges import GaugeRefresher
from workqueue.telemetry.samples import SampleSource
from workqueue.testing import FakeClock
from workqueue.throttle import Configuration
from workqueue.web.metrics import watching
from workqueue.web.server import http_server

GOLDEN = Path(__file__).parent / "golden" / "metrics.txt"
OWNERS = "workqueue_in_progress_keys_by_owner"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# The buckets of the Go implementation, and of client-go, as their scrapes show them.
GO_LATENCY = "0.25 0.5 1 2.5 5 10 20 30 45 60 120 240 480 960 3600 7200 14400 28800 43200 86400 +Inf"
KUBERNETES = "1e-08 1e-07 1e-06 1e-05 0.0001 0.001 0.01 0.1 1 10 +Inf"
BUCKETS = {
    "process_latency_seconds": GO_LATENCY,
    "wait_latency_seconds": GO_LATENCY,
    "wait_latency_from_scheduled_seconds": GO_LATENCY,
    "attempts_at_completion": "1 2 4 8 16 32 64 128 256 512 1024 +Inf",
    "time_to_completion_seconds": (
        "5 10 20 30 45 60 120 240 480 960 3600 7200 14400 28800 43200 86400 172800 259200 +Inf"
    ),
    "lease_age_seconds": "30 60 120 180 240 300 600 900 1200 1800 3600 7200 14400 28800 43200 86400 +Inf",
    "time_until_eligible_seconds": (
        "0 30 60 120 300 600 1800 3600 7200 14400 28800 43200 86400 172800 259200 345600 432000 518400 604800 +Inf"
    ),
    "enumerate_latency_seconds": "0.1 0.25 0.5 1 2.5 5 10 20 30 45 60 +Inf",
    "queue_duration_seconds": KUBERNETES,
    "work_duration_seconds": KUBERNETES,
}


async def lived_through(clock: FakeClock) -> Exposition:
    """A queue and its dispatcher after a short, eventful life."""
    queue = MemoryQueue("builds", clock=clock, owner="europe-west1")
    metrics = DispatchMetrics.of(queue)
    request = LeaseRequest(limit=10, concurrency=10)
    async with queue:
        for key, priority in (("a", 0), ("a", 0), ("b", 250), ("c", -150)):
            await queue.queue(key, Options(priority=priority))
        clock.advance(timedelta(seconds=2))
        started = (await queue.lease(request)).started
        metrics.began(started, clock.steady_us(), clock.wall_us())
        clock.advance(timedelta(seconds=3))
        await started[0].complete()
        metrics.settled("completed", started[0], clock.steady_us())
        await started[1].dead_letter("no")
        metrics.settled("dead-lettered", started[1], clock.steady_us())
        await queue.queue("d")
        clock.advance(timedelta(seconds=40))
        metrics.events = {"sent": 1, "failed": 0, "dropped": 0}
        metrics.rounds["ok"] += 1
        metrics.triggers["shed"] += 2
        metrics.limit = lambda: queue.metrics.configuration.limit(20)
        await queue.configure(Configuration(concurrency=10))
        await GaugeRefresher(queue, queue.metrics, [metrics], clock=clock).refresh()
        return Exposition(Identity("shop", "shop-7"), [queue.metrics], [metrics], clock, sources=fed())


def fed() -> list[SampleSource]:
    """What an enqueuer, schedules, a source and a relay counted."""
    enqueuer, schedules = EnqueuerMetrics("builds"), ScheduleMetrics("builds")
    enqueuer.put, enqueuer.merged, enqueuer.sent, enqueuer.failed = 9, 2, 3, 1
    schedules.fired, schedules.missed = 4, 1
    schedules.lateness.observe(20_000)
    messages = SQSMetrics("builds")
    messages.messages["stored"] = 7
    relay = RelayMetrics("builds", lambda: {"c:80": 5.0})
    relay.received["stored"] = 6
    relay.called("b:80", "delivered")
    relay.put_off("c:80")
    return [enqueuer, schedules, messages, relay]


def eventful() -> Exposition:
    return asyncio.run(lived_through(FakeClock()))


def rendered(exposition: Exposition, accept: str = "") -> str:
    return exposition.render(accept)[0].decode()


def value(text: str, series: str) -> float:
    """The value of the one series whose line starts so."""
    (line,) = [line for line in text.splitlines() if line.startswith(series)]
    return float(line.rsplit(" ", 1)[1])


def test_the_exposition_is_what_dashboards_were_built_on() -> None:
    assert rendered(eventful()) == GOLDEN.read_text(encoding="utf-8")


def test_a_full_scrape_shows_every_metric_of_the_table() -> None:
    names = re.findall(r"^# TYPE (\S+) (\S+)$", rendered(eventful()), re.MULTILINE)

    assert names == [(metric.name, metric.kind) for metric in METRICS]


def test_a_scrape_asks_for_no_created_series() -> None:
    assert "_created" not in rendered(eventful()) + rendered(eventful(), OPENMETRICS)


@pytest.mark.parametrize("metric", sorted(BUCKETS))
def test_buckets_are_written_as_go_writes_them(metric: str) -> None:
    shown = re.findall(rf'^workqueue_{metric}_bucket\{{.*le="([^"]+)"', rendered(eventful()), re.MULTILINE)

    assert " ".join(dict.fromkeys(shown)) == BUCKETS[metric]


def test_both_formats_are_understood_by_a_strict_reader() -> None:
    exposition = eventful()

    text = [family.name for family in parse_text(rendered(exposition))]
    openmetrics = [family.name for family in parse_openmetrics(rendered(exposition, OPENMETRICS))]  # type: ignore[no-untyped-call]

    assert openmetrics == [metric.name.removesuffix("_total") for metric in METRICS]
    assert text == openmetrics


def test_openmetrics_keeps_the_names_that_go_gave_to_two_counters() -> None:
    text = rendered(eventful(), OPENMETRICS)

    assert value(text, "workqueue_added_keys{") == 5
    assert value(text, "workqueue_deduped_keys{") == 1


def test_go_counts_merged_enqueues_as_added_and_kubernetes_does_not() -> None:
    text = rendered(eventful())

    assert (value(text, "workqueue_added_keys{"), value(text, "workqueue_adds_total{")) == (5, 4)


def test_handles_on_one_queue_show_as_one_series() -> None:
    one, two, other = QueueMetrics("q"), QueueMetrics("q"), QueueMetrics("r")
    for metrics in (one, two, two, other):
        metrics.enqueued(0, deduped=False)
    one.counts = two.counts = Counts(queued=3)

    text = rendered(Exposition(queues=[one, two, other]))

    assert value(text, 'workqueue_adds_total{name="q"}') == 3
    assert value(text, 'workqueue_adds_total{name="r"}') == 1
    assert value(text, 'workqueue_depth{name="q"}') == 3
    assert 'workqueue_depth{name="r"}' not in text


def test_enqueuers_of_one_queue_show_as_one_series() -> None:
    one, other, apart = EnqueuerMetrics("builds"), EnqueuerMetrics("builds"), EnqueuerMetrics("mails")
    one.put, other.put, apart.put = 3, 4, 5

    text = rendered(Exposition(sources=[one, other, apart]))

    series = 'workqueue_enqueuer_put_total{queue_name="%s"'
    assert (value(text, series % "builds"), value(text, series % "mails")) == (7, 5)


def test_scraping_changes_nothing() -> None:
    exposition = eventful()

    assert rendered(exposition) == rendered(exposition)


def test_label_values_are_escaped_whatever_they_hold() -> None:
    queue = QueueMetrics('a"b\\c\nd\udcff')
    queue.counts = Counts(in_progress_by_owner={"": 1, "unknown": 1, "\ud800": 2})

    text = rendered(Exposition(queues=[queue]))

    assert r'workqueue_depth{name="a\"b\\c\nd?"} 0.0' in text.splitlines()
    assert value(text, 'workqueue_in_progress_keys_by_owner{owner="unknown"') == 2
    assert value(text, 'workqueue_in_progress_keys_by_owner{owner="?"') == 2


def test_many_owners_are_a_hundred_series_and_one_for_the_rest() -> None:
    queue = QueueMetrics("q")
    queue.counts = Counts(in_progress_by_owner={f"pod-{number:03}": 2 + (number < 100) for number in range(300)})

    lines = [line for line in rendered(Exposition(queues=[queue])).splitlines() if line.startswith(OWNERS)]

    assert len(lines) == 101
    assert value("\n".join(lines), OWNERS + '{owner="pod-000"') == 3
    assert value("\n".join(lines), OWNERS + '{owner="other"') == 400


def test_running_attempts_age_between_scrapes() -> None:
    clock, metrics = FakeClock(), DispatchMetrics("q")
    exposition = Exposition(dispatchers=[metrics], clock=clock)
    for key in ("first", "second"):
        metrics.began([Owned(MemoryQueue(), Entry(key, 0, 1, 0, 0), Lease(key, "token"))], clock.steady_us(), 0)
        clock.advance(timedelta(seconds=10))

    text = rendered(exposition)

    assert value(text, "workqueue_unfinished_work_seconds") == 30
    assert value(text, "workqueue_longest_running_processor_seconds") == 20


def test_metrics_of_the_program_itself_are_shown_after_ours() -> None:
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Gauge("shop_orders", "Open orders.", registry=registry).set(3)

    text = rendered(Exposition(queues=[QueueMetrics("q")], others=[registry]))

    assert text.endswith("# HELP shop_orders Open orders.\n# TYPE shop_orders gauge\nshop_orders 3.0\n")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Identity("unknown", "unknown")),
        ({"OTEL_SERVICE_NAME": "o"}, Identity("o", "unknown")),
        ({"CLOUD_RUN_JOB": "j", "CLOUD_RUN_EXECUTION": "j-1", "OTEL_SERVICE_NAME": "o"}, Identity("j", "j-1")),
        (
            {"K_SERVICE": "s", "K_REVISION": "s-1", "CLOUD_RUN_JOB": "j", "CLOUD_RUN_EXECUTION": "e"},
            Identity("s", "s-1"),
        ),
        ({"K_SERVICE": "", "CLOUD_RUN_JOB": "j", "K_REVISION": ""}, Identity("j", "unknown")),
    ],
)
def test_a_process_is_named_as_go_names_it(environ: dict[str, str], expected: Identity) -> None:
    assert identity(environ) == expected


async def fetched(exposition: Exposition, path: str, accept: str = "*/*") -> tuple[int, str, str]:
    async with (
        http_server(watching(exposition), "127.0.0.1", 0) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        session.get(path, headers={"accept": accept}) as answer,
    ):
        return answer.status, answer.headers["content-type"], await answer.text()


def test_a_program_without_http_serves_its_metrics() -> None:
    status, content_type, body = asyncio.run(fetched(eventful(), "/metrics"))

    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert body == GOLDEN.read_text(encoding="utf-8")


def test_a_scraper_that_asks_for_openmetrics_gets_it() -> None:
    _, content_type, body = asyncio.run(fetched(eventful(), "/metrics", OPENMETRICS))

    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith("# EOF\n")


def test_a_program_without_http_says_that_it_lives() -> None:
    assert asyncio.run(fetched(Exposition(), "/healthz")) == (200, "text/plain; charset=utf-8", "ok\n")


if __name__ == "__main__":
    GOLDEN.write_text(rendered(eventful()), encoding="utf-8")
