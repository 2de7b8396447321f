"""What is counted: the rules of Go's names, priority classes that cannot blow up, gauges that never lie."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import Attempt, DispatcherSettings
from dispatcher.setup import Setup
from tests.support.processes import python
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.clock import from_us
from workqueue.equipment import Equipment
from workqueue.errors import StoreUnavailableError
from workqueue.fallbacks import with_fallbacks
from workqueue.handles import Owned
from workqueue.interface import OwnedInProgressKey
from workqueue.lease import Lease
from workqueue.metric_table import BUCKETS, METRICS
from workqueue.metrics import DispatchMetrics, Histogram, QueueMetrics, metrics_of, priority_class
from workqueue.optional import Counts, LeaseRequest, RecoveredOrphan
from workqueue.options import Options
from workqueue.rules import Entry
from workqueue.telemetry.gauges import GaugeRefresher
from workqueue.testing import FakeClock
from workqueue.throttle import Configuration

SECOND = 1_000_000
NOW = 1_750_000_000 * SECOND


def entry(priority: int = 0, queued: int = NOW, not_before: int = 0, attempts: int = 1) -> Entry:
    return Entry("key", priority, attempts, queued, queued, not_before)


def owned(priority: int = 0, first_queued: int = NOW, attempts: int = 1) -> OwnedInProgressKey:
    return Owned(MemoryQueue(), entry(priority, first_queued, attempts=attempts), Lease("key", "token"))


def labels(metrics: QueueMetrics) -> list[str]:
    return [label for label, _ in metrics.waits.labelled()]


def counted(metrics: QueueMetrics) -> dict[str, list[list[int]]]:
    waits = metrics.waits.labelled()
    return {label: [w.both.counts, w.from_queued.counts, w.from_scheduled.counts] for label, w in waits}


def seen(histogram: Histogram) -> dict[float, int]:
    """The upper bound of every bucket that counted something."""
    bounds = (*histogram.bounds, float("inf"))
    return {bound: count for bound, count in zip(bounds, histogram.counts, strict=True) if count}


@pytest.mark.parametrize(
    ("priority", "number"), [(0, 0), (99, 0), (100, 1), (250, 2), (-1, 0), (-99, 0), (-100, -1), (-250, -2)]
)
def test_a_priority_class_is_rounded_towards_zero_as_go_does(priority: int, number: int) -> None:
    assert priority_class(priority) == number


@pytest.mark.parametrize("priority", [0, 99, 100, -1, -99, -100, -101, 2**53 - 1, -(2**53) + 1])
def test_starting_a_key_uses_the_same_priority_class(priority: int) -> None:
    metrics = QueueMetrics("q")

    metrics.started(entry(priority), NOW)

    assert labels(metrics) == [f"{priority_class(priority)}xx"]


def test_a_queue_never_has_more_than_25_priority_classes() -> None:
    metrics = QueueMetrics("q")

    for priority in range(0, 100_000, 100):
        metrics.started(entry(priority), NOW)

    assert len(labels(metrics)) == 25
    assert labels(metrics)[-1] == "other"
    assert sum(sum(waits.both.counts) for _, waits in metrics.waits.labelled()) == 1000


def test_a_dispatcher_labels_a_priority_as_its_queue_does() -> None:
    queue = MemoryQueue()
    for priority in range(0, 2400, 100):
        queue.metrics.started(entry(priority), NOW)
    dispatcher = DispatchMetrics.of(queue)

    dispatcher.settled("completed", owned(priority=99_00), 0)
    dispatcher.settled("completed", owned(priority=300), 0)

    assert [label for label, _ in dispatcher.work.labelled()] == ["3xx", "other"]


def test_a_wait_counts_from_queued_and_from_not_before() -> None:
    metrics = QueueMetrics("q")

    metrics.started(entry(queued=NOW - 40 * SECOND, not_before=NOW - 3 * SECOND), NOW)

    waits = metrics.waits[0]
    assert (seen(waits.from_queued), seen(waits.from_scheduled), seen(waits.both)) == ({45: 1}, {5: 1}, {})


def test_a_not_before_that_had_passed_when_the_key_was_queued_is_no_wait() -> None:
    metrics = QueueMetrics("q")

    metrics.started(entry(queued=NOW - 3 * SECOND, not_before=NOW - 3600 * SECOND), NOW)

    assert seen(metrics.waits[0].both) == {5: 1}


def test_a_wall_clock_set_back_counts_as_no_wait() -> None:
    metrics = QueueMetrics("q")

    metrics.started(entry(queued=NOW + 60 * SECOND), NOW)

    assert metrics.waits[0].both.total == 0
    assert sum(metrics.waits[0].both.counts) == 1


def test_a_value_on_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram(BUCKETS["wait"])

    for us in (250_000, 250_001, 86_400 * SECOND, 86_400 * SECOND + 1, 0, 1):
        histogram.observe(us)

    assert seen(histogram) == {1e-8: 1, 1e-6: 1, 0.25: 1, 0.5: 1, 86_400: 1, float("inf"): 1}


@given(st.lists(st.one_of(st.integers(-2, 2), st.integers(-5 * SECOND, 2 * 86_400 * SECOND))))
def test_several_values_are_counted_as_each_by_itself(values: list[int]) -> None:
    one_by_one, together = Histogram(BUCKETS["wait"]), Histogram(BUCKETS["wait"])

    for value in values:
        one_by_one.observe(value)
    together.observe_all(list(values))

    assert (together.counts, together.total) == (one_by_one.counts, one_by_one.total)


def test_each_key_of_a_step_is_counted_in_its_class() -> None:
    together, one_by_one = QueueMetrics("q"), QueueMetrics("q")
    step = [entry(250), entry(not_before=NOW + SECOND), entry(), entry(-150, not_before=NOW - SECOND), entry(299)]

    together.started_all(step, NOW + 2 * SECOND)
    for each in step:
        one_by_one.started(each, NOW + 2 * SECOND)

    assert counted(together) == counted(one_by_one)


def test_an_attempt_counts_when_it_ends() -> None:
    metrics = DispatchMetrics("q")
    attempt = owned(priority=150, first_queued=NOW - 100 * SECOND, attempts=3)

    metrics.began([attempt], 5 * SECOND, NOW - 2 * SECOND)
    metrics.settled("completed", attempt, 7 * SECOND)

    work = metrics.work[1]
    assert (seen(work.took), seen(work.completed)) == ({2.5: 1}, {120: 1})
    assert seen(metrics.attempts_at_completion) == {4: 1}
    assert metrics.outcomes["completed"] == 1
    assert metrics.running == {}


def test_only_completed_attempts_count_as_processed() -> None:
    metrics = DispatchMetrics("q")

    for outcome in ("retried", "lost", "released", "dropped", "unsettled", "requeued", "dead-lettered"):
        attempt = owned(first_queued=NOW - 50 * SECOND)
        metrics.began([attempt], 0, NOW)
        metrics.settled(outcome, attempt, 0)

    assert sum(metrics.uncompleted.counts) == 7
    assert seen(metrics.work[0].took) == {}
    assert seen(metrics.work[0].dead_lettered) == {60: 1}


def test_an_orphan_that_is_given_up_ends_its_story_too() -> None:
    metrics = DispatchMetrics("q")
    first = from_us(NOW - 9 * SECOND)

    metrics.recovered([RecoveredOrphan("a", 1, "", 0, first, False), RecoveredOrphan("b", 3, "", 0, first, True)], NOW)

    assert metrics.outcomes["dead-lettered"] == 1
    assert seen(metrics.work[0].dead_lettered) == {10: 1}


def test_a_lease_ages_while_its_attempt_runs() -> None:
    metrics = DispatchMetrics("q")
    attempt = owned()

    metrics.began([attempt], 0, NOW)
    metrics.sample_leases(50 * SECOND)
    metrics.sample_leases(50 * SECOND + 1)  # by somebody else, or by the next round
    metrics.sample_leases(100 * SECOND)
    metrics.settled("completed", attempt, 120 * SECOND)
    metrics.sample_leases(150 * SECOND)

    assert seen(metrics.lease_age) == {60: 1, 120: 1}


def test_a_rate_is_over_the_last_minute_or_so_not_over_the_whole_life() -> None:
    metrics, attempt = DispatchMetrics("q"), owned()
    for second in range(0, 200, 10):
        metrics.sample_leases(second * SECOND)
        for _ in range(100 if second < 100 else 5):
            metrics.settled("completed", attempt, second * SECOND)

    seconds, starts, ends = metrics.rates(200 * SECOND)

    assert 60 <= seconds <= 80
    assert (starts, ends["completed"], ends["dropped"]) == (0.5, 0.5, 0.0)


def test_starts_a_second_count_what_still_runs_and_no_orphan_that_was_given_up() -> None:
    metrics = DispatchMetrics("q")
    metrics.sample_leases(0)
    metrics.began([owned() for _ in range(20)], 0, NOW)
    metrics.recovered([RecoveredOrphan("lost", 3, "", 0, from_us(NOW), True)], NOW)

    _, starts, ends = metrics.rates(10 * SECOND)

    assert (starts, ends["dead-lettered"]) == (2.0, 0.1)


def test_there_is_no_rate_before_anything_was_sampled() -> None:
    assert DispatchMetrics("q").rates(5 * SECOND) == (0.0, 0.0, dict.fromkeys(DispatchMetrics("q").outcomes, 0.0))


async def lived(queue: MemoryQueue) -> None:
    async with queue:
        await queue.queue("a")
        await queue.queue("a")
        await queue.queue("later", Options(not_before=datetime(2100, 1, 1, tzinfo=UTC)))
        leased = await queue.lease(LeaseRequest(limit=1, concurrency=1))
        await leased.started[0].requeue(delay=timedelta(minutes=1))
        await queue.enumerate()


async def test_a_queue_counts_what_is_done_to_it() -> None:
    queue = MemoryQueue(clock=FakeClock())

    await lived(queue)

    metrics = queue.metrics
    assert (metrics.added, metrics.deduped) == (2, 1)
    assert seen(metrics.time_until_eligible) == {0: 2, 60: 1, float("inf"): 1}
    assert labels(metrics) == ["0xx"]
    assert sum(metrics.enumerate_latency.counts) == 1


class Uncountable:
    """A queue whose store answers at first, and then no more."""

    def __init__(self) -> None:
        self.up = True

    async def counts(self) -> Counts:
        if not self.up:
            raise StoreUnavailableError()
        return Counts(queued=7)


async def others_run() -> None:
    """Let every task go on until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_gauges_of_a_store_that_is_down_are_gone_not_frozen() -> None:
    async def outage() -> list[Counts | None]:
        queue, metrics = Uncountable(), QueueMetrics("q")
        refresher = GaugeRefresher(queue, metrics, clock=FakeClock())
        shown = []
        for queue.up in (True, False, True):
            await refresher.refresh()
            shown.append(metrics.counts)
        return shown

    assert await outage() == [Counts(queued=7), None, Counts(queued=7)]


class Silent(Uncountable):
    """A store that takes a request and never answers."""

    async def counts(self) -> Counts:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_store_that_does_not_answer_is_logged_once_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    refresher = GaugeRefresher(Silent(), QueueMetrics("q"), every=timedelta(milliseconds=10))

    for _ in range(3):
        await refresher.refresh()

    reason = "the store did not answer within 0.0 s"
    assert caplog.messages == [f"queue q cannot be counted, its gauges are gone: {reason}"]


async def test_gauges_are_refreshed_in_the_background() -> None:
    async def scenario() -> list[int]:
        clock = FakeClock()
        queued: list[int] = []
        async with MemoryQueue(clock=clock) as queue, GaugeRefresher(queue, queue.metrics, clock=clock):
            for key in ("a", "b"):
                await queue.queue(key)
                clock.advance(timedelta(seconds=10))
                await others_run()
                assert queue.metrics.counts is not None
                queued.append(queue.metrics.counts.queued)
        assert queue.metrics.counts is None
        return queued

    assert await scenario() == [1, 2]


async def test_the_limit_that_is_shown_follows_the_stored_one() -> None:
    shown = []
    async with MemoryQueue() as queue:
        setup = Setup.of(queue, nothing, DispatcherSettings(concurrency=20))
        refresher = GaugeRefresher(setup.queue, queue.metrics, [setup.metrics])
        for stored in (None, 5, 50):
            await queue.configure(Configuration(concurrency=stored))
            await refresher.refresh()
            shown.append(setup.metrics.limit())

    assert shown == [20, 5, 20]


async def nothing(key: str, attempt: Attempt) -> None:
    """There is nothing to do."""


async def test_a_nudged_refresh_never_makes_a_scrape_wait() -> None:
    async def scenario() -> list[Counts | None]:
        clock, queue, metrics = FakeClock(), Uncountable(), QueueMetrics("q")
        refresher, shown = GaugeRefresher(queue, metrics, clock=clock), []
        for queue.up, seconds in ((True, 1), (False, 9), (False, 1)):
            refresher.nudge()
            shown.append(metrics.counts)
            await others_run()
            shown.append(metrics.counts)
            clock.advance(timedelta(seconds=seconds))
        return shown

    counted = Counts(queued=7)
    assert await scenario() == [None, counted, counted, counted, counted, None]


def test_a_queue_keeps_its_metrics_behind_the_fallbacks() -> None:
    class ThreeVerbs:
        equipment = Equipment("minimal", metrics=QueueMetrics("minimal"))

    completed = with_fallbacks(ThreeVerbs())  # type: ignore[arg-type]

    assert metrics_of(completed) is ThreeVerbs.equipment.metrics
    assert DispatchMetrics.of(completed).name == "minimal"


def test_importing_workqueue_imports_neither_prometheus_nor_opentelemetry() -> None:
    program = (
        "import sys, workqueue, workqueue.metrics, workqueue.backends.memory.backend, workqueue.telemetry.gauges;"
        "print([name for name in sys.modules if name.startswith(('prometheus_client', 'opentelemetry'))])"
    )

    answer = python("-c", program)

    assert answer.out.strip() == "[]"


def test_no_label_can_hold_a_key_or_a_process() -> None:
    allowed = {"owner", "result", "priority_class", "status", "outcome", "source", "target"}

    assert {label for metric in METRICS for label in metric.labels} == allowed
