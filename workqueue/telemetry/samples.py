"""The accumulators of `metrics` read out under the names of `metric_table`; those of one queue add up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from workqueue.metrics import ByPriorityClass, DispatchMetrics, Histogram, QueueMetrics

__all__ = [
    "Sample",
    "SampleSource",
    "Value",
    "attempt_samples",
    "gauge_samples",
    "queue_samples",
    "summed",
    "trigger_samples",
]

Value = float | Sequence[Histogram]
"""A number, or the histograms that add up to it."""

Sample = tuple[str, tuple[str, ...], Value]
"""The name of a metric, the values of the labels in its row, and its value."""


class SampleSource(Protocol):
    """Whoever counts beside queues and dispatchers: an enqueuer, a source, a schedule."""

    @property
    def name(self) -> str:
        """The name of the queue that it feeds."""

    def samples(self) -> Iterable[Sample]:
        """What it counted until now."""


_UNKNOWN_OWNER, _OTHER_OWNERS = "unknown", "other"
_MOST_OWNERS = 100
_T = TypeVar("_T")


def summed(values: Iterable[Value]) -> Value:
    """Values of one series, added up: a series may appear only once in a scrape."""
    numbers: list[float] = []
    histograms: list[Histogram] = []
    for value in values:
        if isinstance(value, int | float):
            numbers.append(value)
        else:
            histograms += value
    return sum(numbers) if numbers else histograms


def queue_samples(queues: Sequence[QueueMetrics]) -> Iterator[Sample]:
    """What handles on one queue counted."""
    added, deduped = sum(queue.added for queue in queues), sum(queue.deduped for queue in queues)
    yield "workqueue_added_keys", (), added + deduped  # Go counts requests here, Kubernetes entries below
    yield "workqueue_adds_total", (), added
    yield "workqueue_deduped_keys", (), deduped
    yield "workqueue_expired_leases_total", (), sum(queue.expired_leases for queue in queues)
    yield "workqueue_time_until_eligible_seconds", (), [queue.time_until_eligible for queue in queues]
    yield "workqueue_enumerate_latency_seconds", (), [queue.enumerate_latency for queue in queues]
    scheduled: list[Histogram] = []
    for label, waits in _by_class(queue.waits for queue in queues):
        from_scheduled = [histogram for wait in waits for histogram in (wait.both, wait.from_scheduled)]
        yield "workqueue_wait_latency_from_scheduled_seconds", (label,), from_scheduled
        from_queued = [histogram for wait in waits for histogram in (wait.both, wait.from_queued)]
        yield "workqueue_wait_latency_seconds", (label,), from_queued
        scheduled += from_scheduled
    yield "workqueue_queue_duration_seconds", (), scheduled


def gauge_samples(queues: Sequence[QueueMetrics]) -> Iterator[Sample]:
    """What lies in one queue, as last counted; nothing while that is unknown, rather than numbers that stand still."""
    counts = next((queue.counts for queue in queues if queue.counts is not None), None)
    if counts is None:
        return
    yield "workqueue_in_progress_keys", (), counts.in_progress
    yield "workqueue_queued_keys", (), counts.queued
    yield "workqueue_depth", (), counts.queued
    yield "workqueue_notbefore_keys", (), counts.not_before
    yield "workqueue_dead_lettered_keys", (), counts.dead_lettered
    yield "workqueue_max_attempts", (), counts.max_attempts
    yield "workqueue_oldest_queued_seconds", (), counts.oldest_queued_seconds
    yield "workqueue_unreadable_keys", (), counts.unreadable
    for owner, keys in _by_owner(counts.in_progress_by_owner).items():
        yield "workqueue_in_progress_keys_by_owner", (owner,), keys


def _by_owner(found: Mapping[str, int]) -> Mapping[str, int]:
    """Those who have the most keys, and all others under one name: a series for each pod is too many."""
    owners: defaultdict[str, int] = defaultdict(int)
    for rank, (owner, keys) in enumerate(sorted(found.items(), key=lambda each: (-each[1], each[0]))):
        owners[(owner or _UNKNOWN_OWNER) if rank < _MOST_OWNERS else _OTHER_OWNERS] += keys
    return owners


def attempt_samples(dispatchers: Sequence[DispatchMetrics], steady_us: int) -> Iterator[Sample]:
    """What dispatchers of one queue counted; `steady_us` is now."""
    yield from _labelled("workqueue_outcomes_total", (dispatcher.outcomes for dispatcher in dispatchers))
    yield from _labelled("workqueue_rounds_total", (dispatcher.rounds for dispatcher in dispatchers))
    yield from _labelled("workqueue_error_events_total", (dispatcher.events for dispatcher in dispatchers))
    yield from _labelled("workqueue_lifecycle_events_total", (dispatcher.changes for dispatcher in dispatchers))
    yield "workqueue_retries_total", (), sum(dispatcher.outcomes["retried"] for dispatcher in dispatchers)
    yield "workqueue_runaway_callbacks", (), sum(dispatcher.runaway_callbacks for dispatcher in dispatchers)
    yield "workqueue_concurrency_limit", (), max(dispatcher.limit() for dispatcher in dispatchers)
    yield "workqueue_target_down", (), int(any(dispatcher.is_target_down() for dispatcher in dispatchers))
    yield "workqueue_attempts_at_completion", (), [dispatcher.attempts_at_completion for dispatcher in dispatchers]
    yield "workqueue_lease_age_seconds", (), [dispatcher.lease_age for dispatcher in dispatchers]
    ages = [max(steady_us - began_us, 0) / 1e6 for d in dispatchers for began_us in list(d.running.values())]
    yield "workqueue_unfinished_work_seconds", (), sum(ages)
    yield "workqueue_longest_running_processor_seconds", (), max(ages, default=0.0)
    durations = [dispatcher.uncompleted for dispatcher in dispatchers]
    for label, works in _by_class(dispatcher.work for dispatcher in dispatchers):
        took = [work.took for work in works]
        durations += took
        yield from _used("workqueue_process_latency_seconds", (label,), took)
        story = "workqueue_time_to_completion_seconds"
        yield from _used(story, (label, "success"), [work.completed for work in works])
        yield from _used(story, (label, "dead-lettered"), [work.dead_lettered for work in works])
    yield "workqueue_work_duration_seconds", (), durations


def trigger_samples(dispatchers: Iterable[DispatchMetrics]) -> Iterator[Sample]:
    """What the triggers of the whole process counted: the one metric without a queue."""
    yield from _labelled("workqueue_dispatch_triggers_total", (dispatcher.triggers for dispatcher in dispatchers))


def _used(name: str, labels: tuple[str, ...], histograms: Sequence[Histogram]) -> Iterator[Sample]:
    """Nothing for a class without observations: twenty lines of zeroes for each would be most of a scrape."""
    if any(any(histogram.counts) for histogram in histograms):
        yield name, labels, histograms


def _labelled(name: str, counters: Iterable[Mapping[_T, int]]) -> Iterator[Sample]:
    totals: defaultdict[_T, int] = defaultdict(int)
    for counter in counters:
        for label, count in counter.items():
            totals[label] += count
    for label, total in totals.items():
        yield name, (str(label),), total


def _by_class(sources: Iterable[ByPriorityClass[_T]]) -> Iterable[tuple[str, list[_T]]]:
    classes: defaultdict[str, list[_T]] = defaultdict(list)
    for source in sources:
        for label, accumulator in source.labelled():
            classes[label].append(accumulator)
    return classes.items()
