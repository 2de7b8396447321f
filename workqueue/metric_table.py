"""Stages 1-7: every metric in one table, with its labels, help and buckets; exposition and docs/metrics.md follow it.

The first group has the names, labels and buckets of the Go implementation, so that its dashboards work; the second
those that dashboards for Kubernetes controllers read; the third is ours. No label holds a key, an incarnation or a pid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["BUCKETS", "MAX_PRIORITY_CLASSES", "METRICS", "Metric"]

MAX_PRIORITY_CLASSES = 25
"""At most so many values of `priority_class` for one queue, `other` included."""


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
    "enumerate_latency": (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60),
}  # fmt: skip

METRICS: tuple[Metric, ...] = ()
