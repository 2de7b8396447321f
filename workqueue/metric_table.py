"""Every metric in one table, with its labels, help and buckets; exposition and docs/metrics.md follow it.

The first group has the names, labels and buckets of the Go implementation, so that its dashboards work; the second
those that dashboards for Kubernetes controllers read; the third is ours. No label holds a key, an incarnation or a pid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["BUCKETS", "MAX_PRIORITY_CLASSES", "METRICS", "Metric"]

MAX_PRIORITY_CLASSES = 25
"""The most values of `priority_class` that one queue has, `other` included."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: `labels` are beside those of the process and the queue, which `scope` decides.

    Args:
        scope: `go` = service_name, revision_name, queue_name; `process` = the same without queue_name;
            `kubernetes` = name.
        buckets: upper bounds, for histograms.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    scope: Literal["go", "process", "kubernetes"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_HOUR, _DAY = 3600, 86400

_SECONDS = (
    0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 120, 240, 480, 960,
    _HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR, 12 * _HOUR, _DAY,
)  # fmt: skip
_KUBERNETES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10)

BUCKETS: dict[str, tuple[float, ...]] = {
    "wait": tuple(sorted({*_SECONDS, *_KUBERNETES})),
    "work": tuple(sorted({*_SECONDS, *_KUBERNETES})),
    "time_to_completion": (
        5, 10, 20, 30, 45, 60, 120, 240, 480, 960,
        _HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 3 * _DAY,
    ),
    "time_until_eligible": (
        0, 30, 60, 120, 300, 600, 1800, _HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR, 12 * _HOUR,
        _DAY, 2 * _DAY, 3 * _DAY, 4 * _DAY, 5 * _DAY, 6 * _DAY, 7 * _DAY,
    ),
    "lease_age": (
        30, 60, 120, 180, 240, 300, 600, 900, 1200, 1800, _HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR, 12 * _HOUR, _DAY,
    ),
    "attempts_at_completion": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    "schedule_lateness": (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, _HOUR),
    "enumerate_latency": (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60),
}  # fmt: skip

METRICS: tuple[Metric, ...] = (
    Metric("workqueue_in_progress_keys", "gauge", "go", "Keys in progress, orphans included."),
    Metric("workqueue_queued_keys", "gauge", "go", "Eligible keys: queued, not-before passed, not in progress."),
    Metric("workqueue_notbefore_keys", "gauge", "go", "Queued keys whose not-before has not come."),
    Metric("workqueue_dead_lettered_keys", "gauge", "go", "Keys given up and not yet re-driven or dropped."),
    Metric("workqueue_max_attempts", "gauge", "go", "The most attempts of any queued or in-progress key."),
    Metric(
        "workqueue_in_progress_keys_by_owner",
        "gauge",
        "go",
        "Keys in progress by the owner setting of the process that started them.",
        ("owner",),
    ),
    Metric("workqueue_added_keys", "counter", "go", "Enqueues stored, merged ones included."),
    Metric("workqueue_deduped_keys", "counter", "go", "Enqueues merged with the queued entry of their key."),
    Metric("workqueue_expired_leases_total", "counter", "go", "Orphans recovered: their lease had lapsed."),
    Metric(
        "workqueue_dispatch_triggers_total",
        "counter",
        "process",
        "Dispatch triggers by result: dispatched (a round was admitted) or shed (acknowledged without one).",
        ("result",),
    ),
    Metric(
        "workqueue_process_latency_seconds",
        "histogram",
        "go",
        "How long attempts that completed their key took.",
        ("priority_class",),
        _SECONDS,
    ),
    Metric(
        "workqueue_wait_latency_seconds",
        "histogram",
        "go",
        "From queued to started, delays that were asked for included.",
        ("priority_class",),
        _SECONDS,
    ),
    Metric(
        "workqueue_wait_latency_from_scheduled_seconds",
        "histogram",
        "go",
        "From eligible (the later of queued and not-before) to started.",
        ("priority_class",),
        _SECONDS,
    ),
    Metric(
        "workqueue_attempts_at_completion",
        "histogram",
        "go",
        "How many attempts completed keys had taken.",
        (),
        BUCKETS["attempts_at_completion"],
    ),
    Metric(
        "workqueue_time_to_completion_seconds",
        "histogram",
        "go",
        "From a key's first enqueue to its end, retries and backoff included; status is success or dead-lettered.",
        ("priority_class", "status"),
        BUCKETS["time_to_completion"],
    ),
    Metric(
        "workqueue_lease_age_seconds",
        "histogram",
        "go",
        "Age of this process's running attempts, sampled every five seconds or more.",
        (),
        BUCKETS["lease_age"],
    ),
    Metric(
        "workqueue_time_until_eligible_seconds",
        "histogram",
        "go",
        "How far ahead the not-before of an enqueue or requeue lay; 0 = eligible at once.",
        (),
        BUCKETS["time_until_eligible"],
    ),
    Metric(
        "workqueue_enumerate_latency_seconds",
        "histogram",
        "go",
        "How long listings of the store took.",
        (),
        BUCKETS["enumerate_latency"],
    ),
    # The names that dashboards for Kubernetes controllers read.
    Metric("workqueue_depth", "gauge", "kubernetes", "Eligible keys, as workqueue_queued_keys."),
    Metric("workqueue_adds_total", "counter", "kubernetes", "Enqueues that were not merged."),
    Metric(
        "workqueue_queue_duration_seconds",
        "histogram",
        "kubernetes",
        "From eligible to started, all priorities.",
        (),
        _KUBERNETES,
    ),
    Metric(
        "workqueue_work_duration_seconds",
        "histogram",
        "kubernetes",
        "How long attempts took, however they ended.",
        (),
        _KUBERNETES,
    ),
    Metric("workqueue_unfinished_work_seconds", "gauge", "kubernetes", "Ages of all running attempts, added up."),
    Metric("workqueue_longest_running_processor_seconds", "gauge", "kubernetes", "Age of the oldest running attempt."),
    Metric("workqueue_retries_total", "counter", "kubernetes", "Attempts that failed and were queued again."),
    # Ours.
    Metric(
        "workqueue_oldest_queued_seconds",
        "gauge",
        "go",
        "How long the longest-waiting eligible key could have been started: the best single alert.",
    ),
    Metric(
        "workqueue_unreadable_keys",
        "gauge",
        "go",
        "Keys set aside because their record cannot be read; `workqueue ls` shows them, `workqueue drop` removes them.",
    ),
    Metric(
        "workqueue_rounds_total",
        "counter",
        "go",
        "Dispatch rounds, and steps of the loop, by result: ok, failed (the store did) or target-down.",
        ("result",),
    ),
    Metric(
        "workqueue_concurrency_limit",
        "gauge",
        "go",
        "The most keys in progress over all dispatchers: the stored limit, or this dispatcher's own if that is lower.",
    ),
    Metric("workqueue_target_down", "gauge", "go", "1 while starts are held because the target is down, else 0."),
    Metric(
        "workqueue_outcomes_total",
        "counter",
        "go",
        "Attempts by how they ended: completed, requeued (as asked), retried (failed, queued again with a backoff), "
        "dead-lettered, expired (dead-lettered past its deadline), dropped (non-retriable), released (handed back "
        "unspent), lost (lease gone), unsettled (the store failed).",
        ("outcome",),
    ),
    Metric(
        "workqueue_error_events_total",
        "counter",
        "go",
        "Error events by result: sent, failed (the broker did not take it) or dropped (too many were waiting).",
        ("result",),
    ),
    Metric(
        "workqueue_lifecycle_events_total",
        "counter",
        "go",
        "Lifecycle events by result: sent, failed (the broker did not take it) or dropped (too many were waiting).",
        ("result",),
    ),
    Metric(
        "workqueue_runaway_callbacks",
        "gauge",
        "go",
        "Callbacks still running after their cancellation; each holds a slot of its process.",
    ),
    # Of what feeds queues: shown by processes that have it.
    Metric("workqueue_enqueuer_put_total", "counter", "go", "Keys put into background enqueuers."),
    Metric("workqueue_enqueuer_merged_total", "counter", "go", "Puts merged with the same key before it was sent."),
    Metric("workqueue_enqueuer_sent_total", "counter", "go", "Keys that background enqueuers stored."),
    Metric("workqueue_enqueuer_failed_total", "counter", "go", "Keys that background enqueuers gave up, and reported."),
    Metric(
        "workqueue_enqueuer_buffered_keys",
        "gauge",
        "go",
        "Keys put and neither stored nor given up, those on their way included.",
    ),
    Metric(
        "workqueue_source_messages_total",
        "counter",
        "go",
        "Messages that a source received, by result: stored (and deleted), refused (can never be a key), "
        "undeleted (stored, and will come again).",
        ("source", "result"),
    ),
    Metric("workqueue_schedule_firings_total", "counter", "go", "Ticks for which a schedule's key was enqueued."),
    Metric(
        "workqueue_schedule_missed_ticks_total",
        "counter",
        "go",
        "Ticks that passed while nobody fired, and that got no firing of their own.",
    ),
    Metric(
        "workqueue_schedule_lateness_seconds",
        "histogram",
        "go",
        "From when a tick was to be fired, jitter included, to when its key was enqueued.",
        (),
        BUCKETS["schedule_lateness"],
    ),
    Metric(
        "workqueue_relay_requests_total",
        "counter",
        "go",
        "Requests that came to a relay, by result: stored, repeated (known by its Idempotency-Key), refused (can never "
        "be relayed as it is), unavailable (the store is down or full).",
        ("result",),
    ),
    Metric(
        "workqueue_relay_calls_total",
        "counter",
        "go",
        "Calls of a relay's targets by result: delivered, failed (tried again), refused (given up), unreachable. "
        "After the first hundred targets the label is other.",
        ("target", "result"),
    ),
    Metric(
        "workqueue_relay_put_off_total",
        "counter",
        "go",
        "Requests that had no turn because their target is down or busy; no try was spent.",
        ("target",),
    ),
    Metric("workqueue_relay_target_down", "gauge", "go", "1 while a relay's target is down, else 0.", ("target",)),
)
"""Every metric, in the order in which a scrape shows them."""
