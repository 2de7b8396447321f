"""A picture of a dashboard's panel: what a Prometheus answers to its queries, plotted as SVG. No Grafana is needed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["Series", "answers", "panels", "picture"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _LINE = 560, 200, 60, 40, 24, 14
_ROUND = (1.0, 1.2, 1.6, 2.0, 2.4, 3.0, 4.0, 5.0, 6.0, 8.0)
_COLOURS = ("#3274d9", "#e0752d", "#37872d", "#c4162a", "#8f3bb8", "#0a7f8f", "#b8860b", "#7a5c43")
_DASHES = ("none", "7 3", "2 3", "7 3 2 3")  # the colours come round again, each time dashed otherwise


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a panel: its legend, and its values by seconds."""

    legend: str
    points: Sequence[tuple[float, float]]


def panels(dashboard: Path) -> Iterator[dict[str, Any]]:
    """Every panel of a dashboard."""
    yield from json.loads(dashboard.read_text(encoding="utf-8"))["panels"]


def answers(panel: Mapping[str, Any], ask: Callable[[str], Sequence[Mapping[str, Any]]]) -> list[Series]:
    """The lines of a panel.

    Args:
        panel: of a dashboard.
        ask: gives the result of a range query; the dashboard's variables are filled in.
    """
    found = []
    for target in panel["targets"]:
        query = target["expr"].replace("$queue", ".*").replace("$__rate_interval", "15s")
        for result in ask(query):
            points = [(float(at), float(value)) for at, value in result["values"] if value not in ("NaN", "+Inf")]
            if points:
                found.append(Series(_legend(target["legendFormat"], result["metric"]), points))
    return found


def _legend(form: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda name: labels.get(name[1], ""), form)


def picture(title: str, unit: str, lines: Sequence[Series]) -> str:
    """The SVG text of a panel. Lines that are 0 all the time are counted in its legend, if others are not."""
    shown = [line for line in lines if any(value for _, value in line.points)] or lines
    height = _TOP + _HEIGHT + _BOTTOM + _LINE * (len(shown) + 2)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif">',
        '<style>text {font-size: 11px}</style><rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="22" style="font-size: 14px; font-weight: bold">{escape(title)}</text>',
        *_axes(unit, shown),
    ]
    for number, line in enumerate(shown):
        drawn.append(f'<polyline {_stroke(number)} points="{_path(line, shown)}"/>')
        y = _legend_at(number)
        drawn.append(f'<line {_stroke(number)} x1="18" x2="{_LEFT - 6}" y1="{y - 4}" y2="{y - 4}"/>')
        drawn.append(f'<text x="{_LEFT}" y="{y}">{escape(line.legend)}</text>')
    if len(shown) < len(lines):
        drawn.append(f'<text x="{_LEFT}" y="{_legend_at(len(shown))}">{len(lines) - len(shown)} more are 0</text>')
    return "\n".join([*drawn, "</svg>"]) + "\n"


def _stroke(number: int) -> str:
    """How a line looks: no two of 32 alike."""
    again, colour = divmod(number, len(_COLOURS))
    dash = _DASHES[again % len(_DASHES)]
    return f'fill="none" stroke="{_COLOURS[colour]}" stroke-width="1.5" stroke-dasharray="{dash}"'


def _legend_at(number: int) -> int:
    return _TOP + _HEIGHT + _BOTTOM + _LINE * (number + 1)


def _bounds(lines: Sequence[Series]) -> tuple[float, float, float]:
    times = [at for line in lines for at, _ in line.points]
    most = max((value for line in lines for _, value in line.points), default=1.0)
    return min(times, default=0.0), max(times, default=1.0), _round_above(most or 1.0)


def _round_above(value: float) -> float:
    """The least number that is not below `value` and whose half has two digits at most, for the axis."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return next((it * power for it in _ROUND if it * power >= value), 10 * power)


def _path(line: Series, lines: Sequence[Series]) -> str:
    first, last, most = _bounds(lines)
    across, up = (_WIDTH - _LEFT - 12) / ((last - first) or 1.0), _HEIGHT / most
    return " ".join(
        f"{_LEFT + (at - first) * across:.0f},{_TOP + _HEIGHT - value * up:.1f}" for at, value in line.points
    )


def _axes(unit: str, lines: Sequence[Series]) -> Iterator[str]:
    first, last, most = _bounds(lines)
    for share in (0.0, 0.5, 1.0):
        y = _TOP + _HEIGHT * (1 - share)
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{_shown(most * share, unit)}</text>'
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        x = _LEFT + (_WIDTH - 12 - _LEFT) * share
        shown = f"{(last - first) * share:.0f} s"
        yield f'<text x="{x:.0f}" y="{_TOP + _HEIGHT + 16}" text-anchor="{anchor}">{shown}</text>'


def _shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value:.0%}"
    return f"{value:.3g}" + {"s": " s", "ops": "/s", "reqps": "/s"}.get(unit, "")
