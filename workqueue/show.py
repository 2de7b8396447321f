"""For programs: results, as tables for people or one JSON document for programs.

Keys and errors come from anywhere. Control characters in them are shown escaped, so that no key can move a terminal's
cursor, and a table never cuts a key off.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import typer

from workqueue.interface import DeadLetteredKey, KeyState, KeyStatus, ObservedInProgressKey, QueuedKey
from workqueue.throttle import Configuration

__all__ = [
    "STATUS",
    "configuration",
    "dead_letter",
    "document",
    "moment",
    "note",
    "observed",
    "queued",
    "state",
    "table",
    "visible",
]

STATUS = {
    KeyStatus.UNKNOWN: "unknown",
    KeyStatus.QUEUED: "queued",
    KeyStatus.IN_PROGRESS: "in-progress",
    KeyStatus.DEAD_LETTER: "dead-lettered",
}

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_WIDE = 100_000  # not a terminal: as wide as it needs to be


def document(result: object) -> None:
    """Write one JSON document to stdout."""
    typer.echo(json.dumps(result, indent=2 if sys.stdout.isatty() else None))


def note(text: str) -> None:
    """Write a line for people to stdout."""
    typer.echo(text)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Write a table to stdout; None and '' become '-'."""
    from rich.box import SIMPLE_HEAD  # lazily: it costs a third of the start of a command
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(visible(_cell(value))) for value in row))
    Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False).print(shown)


def visible(text: str) -> str:
    """`text` with control characters and lone surrogates escaped, as in a Python literal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return "-" if value is None or value == "" else str(value)


def moment(value: datetime | None) -> str | None:
    """A time as it stands in JSON: RFC 3339 in UTC, to the microsecond."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if value else None


def queued(key: QueuedKey) -> dict[str, object]:
    """The JSON of a queued key."""
    return {
        "key": key.key,
        "priority": key.priority,
        "attempts": key.attempts,
        "queued_time": moment(key.queued_time),
        "not_before": moment(key.not_before),
        "floor": key.floor,
    }


def observed(key: ObservedInProgressKey) -> dict[str, object]:
    """The JSON of a key in progress."""
    return {
        "key": key.key,
        "priority": key.priority,
        "attempts": key.attempts,
        "queued_time": moment(key.queued_time),
        "owner": key.owner,
        "orphaned": key.orphaned,
    }


def dead_letter(key: DeadLetteredKey) -> dict[str, object]:
    """The JSON of a dead letter."""
    return {
        "key": key.key,
        "priority": key.priority,
        "attempts": key.attempts,
        "queued_time": moment(key.queued_time),
        "failed_time": moment(key.failed_time),
        "error": key.error,
    }


def state(found: KeyState) -> dict[str, object]:
    """The JSON of one key's state."""
    return {
        "key": found.key,
        "status": STATUS[found.status],
        "priority": found.priority,
        "attempts": found.attempts,
        "queued_time": moment(found.queued_time),
        "not_before": moment(found.not_before),
        "floor": found.floor,
        "owner": found.owner,
        "failed_time": moment(found.failed_time),
        "error": found.error,
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
