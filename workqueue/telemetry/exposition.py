"""What a scrape of `/metrics` shows."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Protocol, TypeVar

from workqueue.extras import importing

with importing("metrics", "serving metrics"):
    from prometheus_client import Metric as Family
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.utils import floatToGoString
    from starlette.requests import Request
    from starlette.responses import Response

from workqueue.clock import Clock, SystemClock
from workqueue.metric_table import METRICS, Metric
from workqueue.metrics import DispatchMetrics, Histogram, QueueMetrics
from workqueue.telemetry.samples import (
    Sample,
    SampleSource,
    Value,
    attempt_samples,
    gauge_samples,
    queue_samples,
    summed,
    trigger_samples,
)

__all__ = ["Exposition", "FamilySource", "Identity", "identity"]

_UNKNOWN = "unknown"
_Series = defaultdict[tuple[str, tuple[str, ...]], list[Value]]
"""The values of one metric by queue and labels."""

_M = TypeVar("_M", QueueMetrics, DispatchMetrics)


@dataclass(frozen=True, slots=True)
class Identity:
    """The `service_name` and `revision_name` labels of this process."""

    service: str = _UNKNOWN
    revision: str = _UNKNOWN


def identity(environ: Mapping[str, str]) -> Identity:
    """Who this process is: its Cloud Run service or job, else OTEL_SERVICE_NAME, else `unknown`."""
    return Identity(
        environ.get("K_SERVICE") or environ.get("CLOUD_RUN_JOB") or environ.get("OTEL_SERVICE_NAME") or _UNKNOWN,
        environ.get("K_REVISION") or environ.get("CLOUD_RUN_EXECUTION") or _UNKNOWN,
    )


class FamilySource(Protocol):
    """Whatever else has metrics, such as `prometheus_client.REGISTRY` with those of a program's own callbacks."""

    def collect(self) -> Iterable[Family]:
        """The families to show."""


class Exposition:
    """Everything that one process shows at `/metrics`.

    Args:
        identity: the labels of the process.
        queues: the metrics of its queues; those of one name are added up, since a series may appear only once.
        dispatchers: the metrics of its dispatchers, likewise.
        clock: says how old running attempts are.
        others: shown after ours, as they are.
        sources: whatever else counts for a queue, such as a background enqueuer; those of one queue are added up.
    """

    def __init__(
        self,
        identity: Identity = Identity(),
        queues: Sequence[QueueMetrics] = (),
        dispatchers: Sequence[DispatchMetrics] = (),
        clock: Clock | None = None,
        others: Sequence[FamilySource] = (),
        sources: Sequence[SampleSource] = (),
    ) -> None:
        self.identity = identity
        self.queues = list(queues)
        self.dispatchers = list(dispatchers)
        self.others = others
        self.sources = list(sources)
        self._clock = clock or SystemClock()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The body and its content type: OpenMetrics if the `Accept` header asks for it, else Prometheus text."""
        encode, content_type = choose_encoder(accept)
        openmetrics = content_type.startswith("application/openmetrics-text")
        body = encode(_Registry(chain(self._families(openmetrics), *(other.collect() for other in self.others))))
        return body if openmetrics else _type_counters(body), content_type

    async def scraped(self, request: Request) -> Response:
        """The endpoint: `Route("/metrics", exposition.scraped)`."""
        body, content_type = self.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    def _families(self, openmetrics: bool) -> Iterator[Family]:
        samples: defaultdict[str, _Series] = defaultdict(lambda: defaultdict(list))
        for queue, (name, labels, value) in self._samples():
            samples[name][queue, labels].append(value)
        for row in METRICS:
            if row.name in samples:
                yield self._family(row, samples[row.name], _boundary if openmetrics else _go_boundary)

    def _samples(self) -> Iterator[tuple[str, Sample]]:
        """Every sample with the name of its queue."""
        for name, queues in _by_name(self.queues).items():
            yield from ((name, sample) for sample in chain(gauge_samples(queues), queue_samples(queues)))
        for name, dispatchers in _by_name(self.dispatchers).items():
            yield from ((name, sample) for sample in attempt_samples(dispatchers, self._clock.steady_us()))
        yield from (("", sample) for sample in trigger_samples(self.dispatchers))
        yield from ((source.name, sample) for source in self.sources for sample in source.samples())

    def _family(self, row: Metric, series: _Series, boundary: Callable[[float], str]) -> Family:
        family = _empty_family(row)
        for (queue, values), parts in series.items():
            value = summed(parts)
            labels = self._scope(row, queue) | dict(zip(row.labels, map(_text, values), strict=True))
            if isinstance(value, int | float):
                family.add_sample(row.name, labels, value)
            else:
                _add_histogram(family, row, labels, value, boundary)
        return family

    def _scope(self, row: Metric, queue: str) -> dict[str, str]:
        if row.scope == "kubernetes":
            return {"name": _text(queue)}
        process = {"service_name": _text(self.identity.service), "revision_name": _text(self.identity.revision)}
        return process | {"queue_name": _text(queue)} if row.scope == "go" else process


@dataclass(frozen=True, slots=True)
class _Registry:
    """What the encoders of prometheus_client read from."""

    families: Iterable[Family]

    def collect(self) -> Iterable[Family]:
        return self.families


def _by_name(metrics: Iterable[_M]) -> dict[str, list[_M]]:
    groups: defaultdict[str, list[_M]] = defaultdict(list)
    for one in metrics:
        groups[one.name].append(one)
    return groups


def _empty_family(row: Metric) -> Family:
    # As a counter, prometheus_client would end its name in _total, and OpenMetrics would refuse it without.
    kind = "unknown" if _lacks_total(row) else row.kind
    return Family(row.name.removesuffix("_total") if kind == "counter" else row.name, row.help, kind)


def _lacks_total(row: Metric) -> bool:
    return row.kind == "counter" and not row.name.endswith("_total")


def _type_counters(text: bytes) -> bytes:
    """Prometheus text does allow a counter without _total, which is what Go's two are."""
    for row in filter(_lacks_total, METRICS):
        text = text.replace(f"# TYPE {row.name} untyped\n".encode(), f"# TYPE {row.name} counter\n".encode())
    return text


def _add_histogram(
    family: Family,
    row: Metric,
    labels: dict[str, str],
    histograms: Sequence[Histogram],
    boundary: Callable[[float], str],
) -> None:
    counts = dict.fromkeys((*row.buckets, math.inf), 0)
    for histogram in histograms:
        for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
            counts[row.buckets[i] if (i := bisect_left(row.buckets, bound)) < len(row.buckets) else math.inf] += count
    for bound, cumulative in zip(counts, accumulate(counts.values()), strict=True):
        family.add_sample(f"{row.name}_bucket", labels | {"le": boundary(bound)}, cumulative)
    family.add_sample(f"{row.name}_count", labels, sum(counts.values()))
    family.add_sample(f"{row.name}_sum", labels, sum(histogram.total / histogram.scale for histogram in histograms))


def _boundary(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def _go_boundary(bound: float) -> str:
    """`3600`, not `3600.0`: a query that sums over Go's and our processes must find one series for each bucket."""
    return _boundary(bound).removesuffix(".0")


def _text(label: str) -> str:
    """A label value that can be encoded, whatever an owner or a queue was called."""
    return label.encode("utf-8", "replace").decode()
