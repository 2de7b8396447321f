"""What a person sees while the example runs: a live table on a terminal, one line per change anywhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

from workqueue import KeyNotFoundError, KeyStatus, WorkQueue

_STYLES = {"in progress": "cyan", "dead-lettered": "red", "dropped": "magenta", "done": "green"}


@dataclass
class Story:
    """What this run has seen of each key, beside its state in the queue."""

    runs: Counter[str] = field(default_factory=Counter)
    last_event: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    state: str
    attempts: int
    runs: int
    event: str


async def rows(queue: WorkQueue, keys: Sequence[str], story: Story) -> list[Row]:
    """The present state of every key."""
    return [await _row(queue, key, story) for key in keys]


async def _row(queue: WorkQueue, key: str, story: Story) -> Row:
    event = story.last_event.get(key, "")
    try:
        found = await queue.get(key)
    except KeyNotFoundError:
        state = "dropped" if event.startswith("dropped") else "done"
        return Row(key, state, 0, story.runs[key], event)
    state = {KeyStatus.IN_PROGRESS: "in progress", KeyStatus.DEAD_LETTER: "dead-lettered"}.get(found.status, "queued")
    if state == "queued" and found.not_before is not None:
        state = "queued, waits"
    return Row(key, state, found.attempts, story.runs[key], event)


class Screen:
    """Shows rows as they change; `say` puts a line above the table."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._shown: dict[str, Row] = {}

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """One line for the reader."""
        self.console.print(text, style=style)

    def show(self, present: Sequence[Row]) -> None:
        """Draw the table anew, or print the rows whose state changed."""
        if self._live:
            self._live.update(_table(present), refresh=True)
        else:
            for row in present:
                before = self._shown.get(row.key)
                if before is None or (before.state, before.attempts) != (row.state, row.attempts):
                    self.console.print(f"  {row.key:<12} {row.state:<14} attempts {row.attempts}")
        self._shown = {row.key: row for row in present}


def _table(present: Sequence[Row]) -> Table:
    table = Table("key", "state", "attempts", "runs", "last event", title="manifests", title_justify="left")
    for row in present:
        state = f"[{_STYLES[row.state]}]{row.state}[/]" if row.state in _STYLES else row.state
        table.add_row(row.key, state, str(row.attempts), str(row.runs), row.event[:60])
    return table
