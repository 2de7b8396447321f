"""Draws what `compare` measured: `python -m benchmarks.contenders.plot compare.json compare.png`; needs matplotlib."""

# mypy: disable-error-code="import-not-found"
# What it imports is installed in an environment of its own.
from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

OURS, PEER, TAIL = "#1f6f8b", "#b8c0c8", "#444444"
PANELS = {
    "drain /s": "No-ops drained a second by one process",
    "bulk enqueue /s": "Enqueued a second in the fastest way",
    "enqueue /s": "Enqueued a second, one call each, many producers",
    "duplicates /s": "Enqueued a second, nine of ten duplicates",
    "p50 ms": "Enqueue to start, ms: p50 (bar) to p99 (line)",
    "memory MiB": "Peak memory of the dispatcher or worker, MiB",
}


def panel(axes: Any, what: str, middles: Mapping[str, Mapping[str, float]]) -> None:
    """One measure of everybody who has it, the best on top, on a scale that shows factors."""
    is_rate = what.endswith("/s")
    names = sorted((name for name in middles if what in middles[name]), key=lambda name: middles[name][what])
    names = names if is_rate else names[::-1]
    values = [middles[name][what] for name in names]
    labels = [label(value) for value in values]
    ends = values
    bars = axes.barh(names, values, color=[OURS if name == "ours" else PEER for name in names])
    if what == "p50 ms":
        ends = [middles[name]["p99 ms"] for name in names]
        axes.hlines(range(len(names)), values, ends, color=TAIL, linewidth=1.5)
        labels = [f"{one} / {label(tail)}" for one, tail in zip(labels, ends, strict=True)]
    if what != "memory MiB":
        axes.set_xscale("log")
        axes.set_xlim(min(values, default=1) / 2, max(ends, default=1) * 6)
    else:
        axes.set_xlim(0, max(ends, default=1) * 1.15)
    for bar, end, text in zip(bars, ends, labels, strict=True):
        axes.text(end, bar.get_y() + bar.get_height() / 2, f"  {text}", va="center", fontsize=9)
    for tick in axes.get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text() == "ours" else "normal")
    axes.set_title(PANELS[what], fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def label(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw(document: Mapping[str, Any], target: Path) -> None:
    facts, middles = document["facts"], document["medians"]
    figure, grid = pyplot.subplots(3, 2, figsize=(14, 12), layout="constrained")
    for axes, what in zip(grid.flat, PANELS, strict=True):
        panel(axes, what, middles)
    figure.suptitle(
        f"Dispatching on one {facts['redis']}: ours beside seven Python task queues\n"
        f"Python {facts['python']}, {facts['cpu']}; Redis on one core, the measured process on another; "
        f"medians of {len(document['rounds'])}; all scales but memory's are logarithmic",
        fontsize=12,
    )
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
