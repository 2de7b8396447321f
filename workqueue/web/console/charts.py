"""Samples as lines of an SVG: pure, and drawn by the server, so that a chart needs no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from workqueue.web.console.history import SPAN, History, Sample

__all__ = ["HEIGHT", "WIDTH", "Chart", "charts_of"]

WIDTH, HEIGHT = 600, 60

_COUNTED = {
    "eligible": "queued",
    "in progress": "in_progress",
    "delayed": "not_before",
    "dead-lettered": "dead_lettered",
    "oldest eligible, s": "oldest_queued_seconds",
}
_NO_FAILURES = ("completed", "requeued", "released")  # as asked for, or handed back


@dataclass(frozen=True, slots=True)
class Chart:
    """One line over the last hour: `lines` are the points of its unbroken pieces, `most` is the top of its scale."""

    title: str
    lines: Sequence[str]
    last: float | None
    most: float

    @property
    def figures(self) -> tuple[str, str]:
        """The last value and the highest, to be read."""
        return "–" if self.last is None else _figure(self.last), _figure(self.most)

    @property
    def spoken(self) -> str:
        """What a screen reader says of it."""
        last, most = self.figures
        return f"{self.title}: {last if self.lines else 'unknown'} now, at most {most} in the last hour"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"


def charts_of(history: History, now: datetime) -> Sequence[Chart]:
    """The charts of an overview; what dispatchers say has one where they were asked."""
    samples = history.samples
    drawn = [
        _chart(title, [(each, None if each.counts is None else getattr(each.counts, name)) for each in samples], now)
        for title, name in _COUNTED.items()
    ]
    for title, rate in (("starts a second", _starts), ("ends a second", _ends), ("failures a second", _failures)):
        rates = [(each, rate(each)) for each in samples]
        if any(value is not None for _, value in rates):
            drawn.append(_chart(title, rates, now))
    return drawn


def _starts(sample: Sample) -> float | None:
    return sample.starts_per_second


def _ends(sample: Sample) -> float | None:
    return sum(sample.per_second.values()) if sample.per_second else None


def _failures(sample: Sample) -> float | None:
    failed = [rate for outcome, rate in sample.per_second.items() if outcome not in _NO_FAILURES]
    return sum(failed) if sample.per_second else None


def _chart(title: str, points: Sequence[tuple[Sample, float | None]], now: datetime) -> Chart:
    values = [value for _, value in points if value is not None]
    most = max(values, default=0)
    scale = (HEIGHT - 4) / (most or 1)
    placed = [
        None if value is None else (WIDTH * (1 - (now - sample.at) / SPAN), HEIGHT - 2 - value * scale)
        for sample, value in points
    ]
    return Chart(title, list(_pieces(placed)), values[-1] if values else None, most)


def _pieces(placed: Iterable[tuple[float, float] | None]) -> Iterable[str]:
    """Points as SVG has them, broken where nothing is known; a single point is drawn as a short line."""
    piece: list[str] = []
    for point in (*placed, None):
        if point is not None:
            piece.append(f"{max(point[0], 0):.1f},{point[1]:.1f}")
        elif piece:
            yield " ".join(piece if len(piece) > 1 else piece * 2)
            piece = []
