"""Draws what `compare` measured: `python -m benchmarks.contenders.plot compare.json compare.png`; needs matplotlib."""

# mypy: disable-error-code="import-not-found"
# What it imports is installed in an environment of its own.
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

PANELS = {
    "drain /s": "no-ops drained a second, one process",
    "bulk enqueue /s": "enqueued a second, the fastest way",
    "p50 ms": "enqueue to start, p50 (bar) and p99 (line), ms",
    "memory MiB": "peak memory of the worker, MiB",
}


def draw(results: dict[str, dict[str, Any]], target: Path) -> None:
    figure, panels = pyplot.subplots(2, 2, figsize=(12, 8))
    for panel, (what, title) in zip(panels.flat, PANELS.items(), strict=True):
        names = list(results)[::-1]
        values = [results[name][what] for name in names]
        colours = ["#2a6f97" if name == "ours" else "#a9b4c2" for name in names]
        bars = panel.barh(names, values, color=colours)
        labels = [f"{value:,.0f}" if value >= 10 else f"{value:.2f}" for value in values]
        if what == "p50 ms":
            p99 = [results[name]["p99 ms"] for name in names]
            panel.hlines(range(len(names)), values, p99, color="#444444", linewidth=1)
            panel.set_xscale("log")
            labels = [f"{label} / {tail:.1f}" for label, tail in zip(labels, p99, strict=True)]
            values = p99
        for bar, value, label in zip(bars, values, labels, strict=True):
            panel.text(value, bar.get_y() + bar.get_height() / 2, f" {label}", va="center", fontsize=8)
        panel.set_title(title, fontsize=10)
        panel.margins(x=0.18)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
