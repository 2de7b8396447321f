"""An independent record of what happened, kept by the processes under test but read by nobody there.

Lines go to one O_APPEND file in one write each, so they survive a kill -9 of their writer and never mix. Exclusive
ownership is witnessed by O_EXCL files, which know nothing of leases.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Line:
    """`what` is accepted, begin, end, told, unavailable or violation; `how` says how it ended, or what went wrong."""

    what: str
    key: str
    attempts: int = 0
    how: str = ""


class Ledger:
    """The record of one workspace, shared by every process that works in it."""

    def __init__(self, workspace: Path, limit: int = 1_000) -> None:
        self._limit = limit
        self._path = workspace / "ledger"
        self._live = workspace / "live"
        self._live.mkdir(parents=True, exist_ok=True)

    def write(self, what: str, key: str, attempts: int = 0, how: str = "") -> None:
        line = json.dumps([what, key, attempts, how]) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def read(self) -> list[Line]:
        text = self._path.read_text() if self._path.exists() else ""
        return [Line(*json.loads(line)) for line in text.splitlines()]

    def enter(self, key: str) -> None:
        """Witness that an attempt of `key` begins in this process; two at once are a violation."""
        path = self._live / key.replace("/", "%")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            owner = path.read_text()
            if owner and _alive(int(owner)):
                self.write("violation", key, how=f"process {owner} has it in progress too")
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.write(descriptor, str(os.getpid()).encode())
        os.close(descriptor)
        under_way = sum(_alive(owner) for owner in self._owners())
        if under_way > self._limit:
            self.write("violation", key, how=f"{under_way} attempts at once, the limit is {self._limit}")

    def leave(self, key: str) -> None:
        """The attempt of `key` in this process has ended."""
        (self._live / key.replace("/", "%")).unlink(missing_ok=True)

    def _owners(self) -> list[int]:
        texts = []
        for path in self._live.iterdir():
            with contextlib.suppress(FileNotFoundError):  # that attempt has just ended
                texts.append(path.read_text())
        return [int(text) for text in texts if text]


def _alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie, killed but not yet waited for, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def faults(lines: list[Line]) -> list[str]:
    """What the record says went wrong; empty when every promise held."""
    return [*_violations(lines), *_never_ended(lines), *_shrunk_attempts(lines)]


def _violations(lines: list[Line]) -> list[str]:
    return [f"{line.key}: {line.how}" for line in lines if line.what == "violation"]


def _never_ended(lines: list[Line]) -> list[str]:
    accepted = {line.key: number for number, line in enumerate(lines) if line.what == "accepted"}
    ended = {line.key: number for number, line in enumerate(lines) if line.what == "end" and line.how == "completed"}
    # A key may be enqueued, run and end before its producer gets to write "accepted"; what counts is that it ended.
    return [f"{key}: accepted, but never completed" for key in accepted if key not in ended]


def _shrunk_attempts(lines: list[Line]) -> list[str]:
    last: dict[str, int] = defaultdict(int)
    shrunk = []
    for line in lines:
        if line.what == "begin":
            if line.attempts <= last[line.key]:
                shrunk.append(f"{line.key}: attempt {line.attempts} follows attempt {last[line.key]}")
            last[line.key] = line.attempts
        elif line.what == "end" and line.how != "failed":
            last[line.key] = 0  # a success or a RequeueAfter starts the count anew
    return shrunk
