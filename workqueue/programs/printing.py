"""For programs: results, as tables for people or one JSON document for programs.

Keys, owners and errors come from anywhere. All text for people goes through `visible`, so that nothing of it can move a
terminal's cursor or make up a line; a table never cuts a key off.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TextIO

import typer

from workqueue.errors import WorkQueueError
from workqueue.interface import DeadLetteredKey, KeyState, ObservedInProgressKey, QueuedKey, UnreadableKey
from workqueue.safe_text import visible
from workqueue.throttle import Configuration

__all__ = [
    "OutputError",
    "complaints",
    "configuration",
    "dead_letter",
    "document",
    "done",
    "facts",
    "forget_output",
    "listing",
    "note",
    "observed",
    "queued",
    "state",
    "unreadable",
    "verbatim",
]

_FOLDED = 12  # a column that is folded to less cannot be read: a date has ten characters
_CUT = 120  # errors can be long; `get` and --json show them whole


class OutputError(WorkQueueError):
    """What a command has to show cannot be written to stdout; `is_unread`: who reads it has seen enough."""

    def __init__(self, reason: str, *, is_unread: bool = False) -> None:
        super().__init__(f"the output cannot be written: {reason}")
        self.is_unread = is_unread


@contextmanager
def done() -> Iterator[None]:
    """Within the block, show what was done. Where that cannot be shown, it is done all the same: a line on stderr."""
    try:
        yield
    except OutputError as error:
        complaints([] if error.is_unread else [f"it was done, but {error}"])


@contextmanager
def _written() -> Iterator[None]:
    if sys.stdout is None:  # it was closed before the program began
        raise OutputError("stdout is closed")
    try:
        yield
    except OSError as error:
        forget_output()
        raise OutputError(error.strerror or str(error), is_unread=isinstance(error, BrokenPipeError)) from error


def forget_output(stream: TextIO | None = None) -> None:
    """After output to `stream`, by default stdout, could not be written: let nobody try again what is in its buffer."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())


def document(result: object) -> None:
    """Write one JSON document to stdout; times as RFC 3339 in UTC."""
    with _written():
        typer.echo(json.dumps(result, indent=2 if sys.stdout.isatty() else None, default=_rfc3339))


def note(text: str) -> None:
    """Write a line for people to stdout."""
    verbatim(visible(text))


def verbatim(text: str) -> None:
    """Write text of our own to stdout, of any number of lines."""
    with _written():
        typer.echo(text)


def complaints(lines: Iterable[str]) -> None:
    """Write lines to stderr, as far as that is possible."""
    try:
        for line in lines:
            typer.echo(visible(line), err=True)
    except OSError:  # there is nowhere left to say it
        forget_output(sys.stderr)  # else Python tries again at its end, and ends with a code of its own


def listing(rows: Sequence[Mapping[str, object]], title: str = "") -> None:
    """Write rows of the same names to stdout, as a table under its title. The first column is never cut."""
    if title:
        note(title)
    columns = [name.replace("_", " ") for name in rows[0]]
    cells = ([_cell(value) for value in row.values()] for row in rows)
    _print([columns, *([key, *map(_cut, rest)] for key, *rest in cells)], header=True)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Write what is known of one thing to stdout, a line each; None and '' are left out."""
    _print([(visible(name), _cell(value)) for name, value in pairs if value not in (None, "")], header=False)


def _print(rows: Sequence[Sequence[str]], *, header: bool) -> None:
    """Rows in columns: folded to a terminal's width, else plain and as wide as they are."""
    with _written():
        if sys.stdout.isatty():
            _fold(rows, header=header)
            return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        note("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _fold(rows: Sequence[Sequence[str]], *, header: bool) -> None:
    from rich.console import Console  # lazily: rich costs a third of the start of a command
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if header and console.width < _least_width(rows):
        for record in rows[1:]:
            console.print(Text(record[0], style="bold"))
            said = [(name, cell) for name, cell in zip(rows[0], record, strict=True) if cell != "-"]
            console.print(Text("\n".join(f"  {name}: {cell}" for name, cell in said[1:])))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=header, header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows[1:] if header else rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _least_width(rows: Sequence[Sequence[str]]) -> int:
    """What a table needs to be read as one; in less, each row is a record of lines."""
    return sum(min(max(map(len, column)), _FOLDED) + 2 for column in zip(*rows, strict=True)) - 2


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, bool):
        return "yes" if value else "-"
    return "-" if value in (None, "") else visible(str(value))


def _cut(cell: str) -> str:
    return cell if len(cell) <= _CUT else cell[: _CUT - 1] + "…"


def _rfc3339(value: object) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} has no place in a JSON document")
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def queued(key: QueuedKey) -> dict[str, object]:
    """The JSON of a queued key."""
    return {**_common(key), "not_before": key.not_before, "floor": key.floor, "last_error": key.last_error}


def observed(key: ObservedInProgressKey) -> dict[str, object]:
    """The JSON of a key in progress."""
    return {
        **_common(key),
        "owner": key.owner,
        "orphaned": key.orphaned,
        "attempt_began": key.attempt_began,
        "lease_expires": key.lease_expires,
        "last_error": key.last_error,
    }


def dead_letter(key: DeadLetteredKey) -> dict[str, object]:
    """The JSON of a dead letter."""
    return {**_common(key), "failed_time": key.failed_time, "error": key.error}


def unreadable(key: UnreadableKey) -> dict[str, object]:
    """The JSON of a key whose record cannot be read."""
    return {"key": key.key, "place": key.place, "reason": key.reason}


def _common(key: QueuedKey | ObservedInProgressKey | DeadLetteredKey) -> dict[str, object]:
    return {"key": key.key, "priority": key.priority, "attempts": key.attempts, "queued_time": key.queued_time}


def state(found: KeyState) -> dict[str, object]:
    """The JSON of one key's state."""
    return {
        "key": found.key,
        "status": found.status,
        "priority": found.priority,
        "attempts": found.attempts,
        "queued_time": found.queued_time,
        "not_before": found.not_before,
        "floor": found.floor,
        "owner": found.owner,
        "failed_time": found.failed_time,
        "error": found.error,
        "last_error": found.last_error,
        "attempt_began": found.attempt_began,
        "lease_expires": found.lease_expires,
        "payload_base64": base64.b64encode(found.payload).decode() if found.payload is not None else None,
        "meta": dict(found.meta),
    }


def configuration(stored: Configuration) -> Mapping[str, object]:
    """The JSON of the settings stored with a queue."""
    return {
        "concurrency": stored.concurrency,
        "paused": stored.paused,
        "starts_per_second": stored.starts_per_second,
    }
