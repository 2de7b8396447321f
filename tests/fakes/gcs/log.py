"""What was asked of the emulator, for tests that count requests and money."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tests.fakes.gcs.requests import CLASSES, Call


@dataclass(frozen=True, slots=True)
class Entry:
    """One request and what became of it.

    Attributes:
        operation: as in `Call`.
        bucket: the bucket of the object below.
        name: the object; the destination of a copy; the prefix of a list.
        source: the source object of a copy.
        status: what processing answered; 0 when the connection was dropped before it.
        fault: what a planned fault did to it, such as `drop after`; empty without one.
    """

    operation: str
    bucket: str
    name: str
    source: str
    status: int
    fault: str


class RequestLog:
    """Counts by operation and by billing class, and every request in the order it was finished.

    Attributes:
        requests: how many requests of each operation arrived.
        classes: the same by what they cost: `A`, `B`, `free`.
        entries: one `Entry` for each.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start counting from zero."""
        self.requests: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.entries: list[Entry] = []

    def arrived(self, call: Call) -> None:
        """Count a request."""
        self.requests[call.operation] += 1
        self.classes[CLASSES[call.operation]] += 1

    def finished(self, call: Call, status: int, fault: str) -> None:
        """Note what became of it."""
        self.entries.append(Entry(call.operation, call.bucket, call.name, call.source, status, fault))
