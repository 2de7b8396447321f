"""What `top` shows, as lines (pure): so that it can be checked without a terminal, and fits any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from workqueue.interface import DeadLetteredKey, ObservedInProgressKey, QueuedKey
from workqueue.optional import Counts
from workqueue.safe_text import shown_duration, visible
from workqueue.telemetry.standing import Standing
from workqueue.throttle import Configuration

__all__ = ["Line", "Row", "View", "picture", "rows_of"]

_LEAST_KEY = 16
_GAP = "  "
_ALARM, _TITLE, _PLAIN = "red", "bold", ""
_STYLES = {"in progress": "cyan", "orphaned": _ALARM, "dead-lettered": _ALARM}


class Line(NamedTuple):
    """One line, and how it is shown on a terminal."""

    text: str
    style: str = _PLAIN


@dataclass(frozen=True, slots=True)
class Row:
    """One key. `span` is how long it has been so; of a delayed one, how long it will be."""

    key: str
    state: str
    attempts: int
    span: timedelta | None
    owner: str = ""
    error: str = ""

    def cells(self) -> tuple[str, str, str, str, str]:
        """What is shown beside the key."""
        span = "-" if self.span is None else shown_duration(max(self.span, timedelta(0)))
        return self.state, str(self.attempts), span, visible(self.owner) or "-", visible(self.error)


_HEADER = ("KEY", "STATE", "TRY", "FOR", "OWNER", "LAST ERROR")


@dataclass(frozen=True, slots=True)
class View:
    """What was found at `now`; `trouble`: why it is not known any better."""

    name: str
    now: datetime
    counts: Counts = field(default_factory=Counts)
    stored: Configuration = field(default_factory=Configuration)
    rows: Sequence[Row] = ()
    standings: Sequence[Standing] = ()
    trouble: str = ""


def rows_of(
    now: datetime,
    running: Sequence[ObservedInProgressKey],
    waiting: Sequence[QueuedKey],
    dead: Sequence[DeadLetteredKey],
) -> Iterator[Row]:
    """A row for each key, in the order given: those that run, those that start next, those that were given up."""
    for key in running:
        state = "orphaned" if key.orphaned else "in progress"
        span = now - key.attempt_began if key.attempt_began else None
        yield Row(key.key, state, key.attempts, span, key.owner, key.last_error)
    for each in waiting:
        is_early = each.not_before is not None and each.not_before > now
        span = each.not_before - now if is_early and each.not_before else now - each.queued_time
        yield Row(each.key, "starts in" if is_early else "queued", each.attempts, span, "", each.last_error)
    for letter in dead:
        yield Row(letter.key, "dead-lettered", letter.attempts, now - letter.failed_time, "", letter.error)


def picture(view: View, width: int | None = None, height: int | None = None) -> list[Line]:
    """The lines of `view`.

    Args:
        view: what to show.
        width: of the terminal, in cells; lines are cut to it. None: nothing is cut.
        height: of the terminal. What does not fit is left out, and the last line says how many keys that is.
    """
    lines = [*_heading(view), *_said(view)]
    table = _table(view.rows, width)
    if height is not None and len(lines) + len(table) > height:
        kept = max(height - len(lines) - 1, 0)
        table = [*table[:kept], Line(f"… {len(table) - kept} more lines: a higher terminal shows them")]
    lines = [*lines, *table][:height]
    return lines if width is None else [Line(_fitted(line.text, width).rstrip(), line.style) for line in lines]


def _heading(view: View) -> Iterator[Line]:
    counts = view.counts
    yield Line(f"{visible(view.name)}  {view.now:%H:%M:%S}", _TITLE)
    if view.trouble:
        yield Line(visible(view.trouble), _ALARM)
        return
    yield Line(
        f"queued {counts.queued:,}  delayed {counts.not_before:,}  in progress {counts.in_progress:,}"
        f"  dead-lettered {counts.dead_lettered:,}  twins {counts.twins:,}"
    )
    oldest = shown_duration(timedelta(seconds=counts.oldest_queued_seconds))
    yield Line(f"oldest queued {oldest}  most attempts {counts.max_attempts}{_stored(view.stored)}")
    if view.stored.paused:
        yield Line("paused: no key starts until `workqueue resume`", _ALARM)
    if counts.unreadable:
        yield Line(f"unreadable {counts.unreadable}: `workqueue ls --state unreadable` says why", _ALARM)


def _stored(stored: Configuration) -> str:
    concurrency = f"{_GAP}concurrency {stored.concurrency}" if stored.concurrency else ""
    starts = f"{_GAP}starts per second {stored.starts_per_second:g}" if stored.starts_per_second else ""
    return concurrency + starts


def _said(view: View) -> Iterator[Line]:
    """What the dispatchers say."""
    for each in view.standings:
        if each.uptime is None:
            yield Line(each.name)
        else:
            rates = "".join(f"{_GAP}{name} {rate:.1f}/s" for name, rate in each.per_second.items() if rate)
            up = shown_duration(each.uptime)
            yield Line(f"{each.name}{_GAP}up {up}{_GAP}running {each.running} of {each.limit}{rates}")
        for trouble in each.troubles:
            yield Line(f"  {visible(trouble)}", _ALARM)


def _table(rows: Sequence[Row], width: int | None) -> list[Line]:
    """Columns as wide as they need be. Where that is too much the last ones go, and what is left is cut."""
    if not rows:
        return []
    cells = [_HEADER, *((visible(row.key), *row.cells()) for row in rows)]
    widths = [max(map(_cells, column)) for column in zip(*cells, strict=True)]
    shown = _columns(widths, width)
    styles = [_TITLE, *(_STYLES.get(row.state, _PLAIN) for row in rows)]
    lines = [_GAP.join(_fitted(cell, wide) for cell, wide in zip(line, shown, strict=False)).rstrip() for line in cells]
    return [Line(""), *map(Line, lines, styles)]


def _columns(widths: Sequence[int], width: int | None) -> list[int]:
    """How wide each column is shown; none for those that are left out."""
    if width is None:
        return list(widths)
    key, *others = widths
    for count in range(len(others), -1, -1):
        kept = others[:count]
        if count == len(others):  # errors are long: they take what is left, if that is enough to be read
            kept[-1] = min(kept[-1], max(width - min(key, width // 3) - sum(kept[:-1]) - len(_GAP) * count, 12))
        room = width - sum(kept) - len(_GAP) * count
        if room >= min(key, _LEAST_KEY):
            return [min(key, room), *kept]
    return [width]


def _cells(text: str) -> int:
    from rich.cells import cell_len  # lazily: rich costs a third of the start of a command

    return cell_len(text)


def _fitted(text: str, width: int) -> str:
    """`text` padded or cut to `width` cells; what is cut ends in an ellipsis."""
    from rich.cells import set_cell_size

    return set_cell_size(text, width) if _cells(text) <= width else set_cell_size(text, width - 1) + "…"
