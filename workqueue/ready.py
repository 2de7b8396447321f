"""Stage 3: queued entries in the order in which they start: priority descending, then queued time, then name.

A lane per priority. Most entries arrive in order and cost an append and a popleft; the others (a release at its old
place, a key whose not-before passed) go to the lane's heap. An entry that was replaced or removed stays behind as a
stale reference, found out by identity when it comes up, and swept once stale references are the majority. So a step
costs the same at a thousand keys and at a million.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import count

from workqueue.entry import Entry

__all__ = ["ReadyIndex"]

_SWEEP_AT = 1024


class _Lane:
    """The eligible entries of one priority."""

    __slots__ = ("early", "in_order", "last", "numbers")

    def __init__(self) -> None:
        self.in_order: deque[Entry] = deque()
        self.last = (0, "")
        self.early: list[tuple[int, str, int, Entry]] = []
        self.numbers = count()  # breaks ties between references to one key, so that entries are never compared

    def add(self, entry: Entry) -> None:
        place = (entry.queued_us, entry.key)
        if place >= self.last:
            self.last = place
            self.in_order.append(entry)
        else:
            heapq.heappush(self.early, (*place, next(self.numbers), entry))

    def head(self, entries: Mapping[str, Entry]) -> Entry | None:
        """The first entry that is not stale; stale ones before it are forgotten."""
        in_order, early = self.in_order, self.early
        while in_order and entries.get(in_order[0].key) is not in_order[0]:
            in_order.popleft()
        while early and entries.get(early[0][1]) is not early[0][3]:
            heapq.heappop(early)
        if not early:
            return in_order[0] if in_order else None
        if in_order and (in_order[0].queued_us, in_order[0].key) < early[0]:
            return in_order[0]
        return early[0][3]

    def pop(self, entries: Mapping[str, Entry]) -> Entry | None:
        """Take out the first entry that is not stale."""
        in_order = self.in_order
        if self.early:
            head = self.head(entries)
            if head is not None and not (in_order and in_order[0] is head):
                return heapq.heappop(self.early)[3]
        while in_order:
            entry = in_order.popleft()
            if entries.get(entry.key) is entry:
                return entry
        return None

    def sweep(self, is_live: Callable[[Entry], bool]) -> int:
        self.in_order = deque(filter(is_live, self.in_order))
        self.early = [item for item in self.early if is_live(item[3])]
        heapq.heapify(self.early)
        return len(self.in_order) + len(self.early)


class ReadyIndex:
    """The eligible ones among `entries`, which stays the caller's: an entry is live while `entries` maps its key to it.

    Each entry object is added at most once.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries
        self._lanes: dict[int, _Lane] = {}
        self._priorities: list[int] = []  # heap of -priority, one for each lane
        self._references = 0
        self._stale = 0

    def add(self, entry: Entry) -> None:
        """`entry` is eligible from now on."""
        lane = self._lanes.get(entry.priority)
        if lane is None:
            lane = self._lanes[entry.priority] = _Lane()
            heapq.heappush(self._priorities, -entry.priority)
        lane.add(entry)
        self._references += 1

    def note_stale(self) -> None:
        """The caller replaced or removed an entry that was added; sweeps when stale references are the majority."""
        self._stale += 1
        if self._stale > _SWEEP_AT and self._stale * 2 > self._references:
            self._references = sum(lane.sweep(self._is_live) for lane in self._lanes.values())
            self._stale = 0

    def peek(self) -> Entry | None:
        """The entry that would start next, or None."""
        while self._priorities:
            lane = self._lanes[-self._priorities[0]]
            head = lane.head(self._entries)
            if head is not None:
                return head
            del self._lanes[-heapq.heappop(self._priorities)]
        return None

    def pop(self) -> Entry | None:
        """Take out the entry that starts next. The caller removes it from `entries`."""
        while self._priorities:
            entry = self._lanes[-self._priorities[0]].pop(self._entries)
            if entry is not None:
                self._references -= 1
                return entry
            del self._lanes[-heapq.heappop(self._priorities)]
        return None

    def heads(self) -> Iterator[Entry]:
        """The first entry of each priority."""
        for lane in self._lanes.values():
            head = lane.head(self._entries)
            if head is not None:
                yield head

    def first(self, limit: int) -> list[Entry]:
        """The next `limit` entries in order; they stay."""
        taken: list[Entry] = []
        while len(taken) < limit and (entry := self.pop()) is not None:
            taken.append(entry)
        for entry in taken:
            self.add(entry)
        return taken

    def _is_live(self, entry: Entry) -> bool:
        return self._entries.get(entry.key) is entry
