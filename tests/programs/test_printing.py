"""Tables for people fit the terminal, and can be read in a narrow one."""

from __future__ import annotations

import io
import re
import sys

import pytest

from workqueue.programs.printing import listing

LETTER = {
    "key": "a/very/long/key/that/goes/on/and/on/forever",
    "priority": 0,
    "attempts": 1,
    "queued_time": "2026-11-27 16:52:27Z",
    "failed_time": "2026-11-27 16:52:29Z",
    "error": "ValueError: what went wrong",
    "owner": None,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 60])
def test_a_row_is_a_record_of_lines_where_a_table_would_be_folded_beyond_reading(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", out := Terminal())

    listing([LETTER])

    lines = re.sub(r"\x1b\[\d*m", "", out.getvalue()).splitlines()
    assert "  failed time: 2026-11-27 16:52:29Z" in lines
    assert "  error: ValueError: what went wrong" in lines
    assert "owner" not in out.getvalue()
    assert max(map(len, lines)) <= columns


def test_in_a_wide_terminal_rows_stand_in_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stdout", out := Terminal())

    listing([LETTER])

    assert "failed time: " not in out.getvalue()
