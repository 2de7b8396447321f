"""Stage 3: queued entries in the order in which they start: priority descending, then queued time, then name.

A lane per priority. Most entries arrive in order and cost an append and a popleft; the others (a release at its old
place, a key whose not-before passed) go to the lane's heaps. An entry that was replaced or removed stays behind as a
stale reference, found out by identity when it comes up, and swept once stale references are the majority. So a step
costs the same at a thousand keys and at a million.
"""

from __future__ import annotations

import bisect
import heapq
from collections import deque
from collections.abc import Callable, Mapping
from itertools import count, islice

from workqueue.rules import Entry

__all__ = ["ReadyIndex"]

_SWEEP_AT = 1024

_Filed = tuple[int, str, int, Entry]  # place, number, entry
_Wait = tuple[int, int, Entry]  # since when it could be started, number, entry


class _Lane:
    """The eligible entries of one priority."""

    __slots__ = ("early", "in_order", "last", "late", "numbers")

    def __init__(self) -> None:
        self.in_order: deque[Entry] = deque()
        self.last = (0, "")
        self.early: list[_Filed] = []  # entries that came out of order
        self.late: list[_Filed] = []  # entries that had to wait, so that their queued time is not how long they waited
        self.numbers = count()  # breaks ties between references to one key, so that entries are never compared

    @property
    def is_empty(self) -> bool:
        return not (self.in_order or self.early or self.late)

    def add(self, entry: Entry) -> None:
        place = (entry.queued_us, entry.key)
        if entry.not_before_us > entry.queued_us:
            heapq.heappush(self.late, (*place, next(self.numbers), entry))
        elif place >= self.last:
            self.last = place
            self.in_order.append(entry)
        else:
            heapq.heappush(self.early, (*place, next(self.numbers), entry))

    def head(self, entries: Mapping[str, Entry]) -> Entry | None:
        """The first entry that is not stale; stale ones before it are forgotten."""
        head = self.punctual_head(entries)
        late = _heap_head(self.late, entries)
        return late if head is None or (late is not None and _place(late) < _place(head)) else head

    def punctual_head(self, entries: Mapping[str, Entry]) -> Entry | None:
        """The first entry that could be started from the moment on when it was queued."""
        in_order = self.in_order
        while in_order and entries.get(in_order[0].key) is not in_order[0]:
            in_order.popleft()
        head, early = in_order[0] if in_order else None, _heap_head(self.early, entries)
        return early if head is None or (early is not None and _place(early) < _place(head)) else head

    def take(self, limit: int, entries: Mapping[str, Entry]) -> list[Entry]:
        """Take out the first entries that are not stale, at most `limit`."""
        taken: list[Entry] = []
        while len(taken) < limit and (self.early or self.late) and (head := self.head(entries)) is not None:
            self._take_out(head)
            taken.append(head)
        in_order, room = self.in_order, limit - len(taken)
        while room and in_order:
            entry = in_order.popleft()
            if entries.get(entry.key) is entry:
                taken.append(entry)
                room -= 1
        return taken

    def _take_out(self, head: Entry) -> None:
        for heap in (self.early, self.late):
            if heap and heap[0][3] is head:
                heapq.heappop(heap)
                return
        self.in_order.popleft()

    def sweep(self, is_live: Callable[[Entry], bool]) -> int:
        self.in_order = deque(filter(is_live, self.in_order))
        self.early, self.late = ([item for item in heap if is_live(item[3])] for heap in (self.early, self.late))
        heapq.heapify(self.early)
        heapq.heapify(self.late)
        return len(self.in_order) + len(self.early) + len(self.late)

    def after(self, place: tuple[int, str] | None, limit: int, is_live: Callable[[Entry], bool]) -> list[Entry]:
        """The first `limit` entries behind `place`, in order; they stay."""
        at = bisect.bisect_right(self.in_order, place, key=_place) if place is not None else 0
        punctual = islice(filter(is_live, islice(self.in_order, at, None)), limit)
        filed = (item[3] for heap in (self.early, self.late) for item in heap if place is None or item[:2] > place)
        return heapq.nsmallest(limit, [*punctual, *filter(is_live, filed)], key=_place)


def _place(entry: Entry) -> tuple[int, str]:
    return entry.queued_us, entry.key


def _heap_head(heap: list[_Filed], entries: Mapping[str, Entry]) -> Entry | None:
    while heap and entries.get(heap[0][1]) is not heap[0][3]:
        heapq.heappop(heap)
    return heap[0][3] if heap else None


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
        self._waits: list[_Wait] = []  # heap of the entries that had to wait, by when they came due
        self._sweep_waits_at = _SWEEP_AT
        self._numbers = count()

    def add(self, entry: Entry) -> None:
        """`entry` is eligible from now on."""
        if entry.not_before_us > entry.queued_us:
            self._note_wait(entry)
        self._file(entry)

    def _note_wait(self, entry: Entry) -> None:
        if len(self._waits) >= self._sweep_waits_at:  # nobody may ever ask for `oldest_us`, which forgets stale ones
            self._waits = [wait for wait in self._waits if self._is_live(wait[2])]
            heapq.heapify(self._waits)
            self._sweep_waits_at = max(_SWEEP_AT, 2 * len(self._waits))
        heapq.heappush(self._waits, (entry.not_before_us, next(self._numbers), entry))

    def _file(self, entry: Entry) -> None:
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
            self._sweep()

    def _sweep(self) -> None:
        """Forget stale references, and the lanes that had nothing else: priorities may be as many as enqueues."""
        left = {priority: lane.sweep(self._is_live) for priority, lane in self._lanes.items()}
        self._lanes = {priority: self._lanes[priority] for priority, size in left.items() if size}
        self._priorities = [-priority for priority in self._lanes]
        heapq.heapify(self._priorities)
        self._references = sum(left.values())
        self._stale = 0

    def peek(self) -> Entry | None:
        """The entry that would start next, or None."""
        while self._priorities:
            lane = self._lanes[-self._priorities[0]]
            head = lane.head(self._entries)
            if head is not None:
                return head
            self._forget_first_lane()
        return None

    def take(self, limit: int) -> list[Entry]:
        """Take out the entries that start next, at most `limit`. The caller removes them from `entries`."""
        taken: list[Entry] = []
        while self._priorities and len(taken) < limit:
            lane = self._lanes[-self._priorities[0]]
            found = lane.take(limit - len(taken), self._entries)
            self._references -= len(found)
            taken += found
            # The last lane stays: it is the one that the next enqueue needs, most of the time. Others would pile up
            # below ever higher priorities, where nobody looks.
            if len(self._priorities) == 1:
                break
            if lane.is_empty:
                self._forget_first_lane()
        return taken

    def _forget_first_lane(self) -> None:
        del self._lanes[-heapq.heappop(self._priorities)]

    def oldest_us(self) -> int | None:
        """Since when the longest-waiting entry could have been started, in wall microseconds; None = there is none."""
        waits = self._waits
        while waits and not self._is_live(waits[0][2]):
            heapq.heappop(waits)
        heads = [lane.punctual_head(self._entries) for lane in self._lanes.values()]
        since = [head.queued_us for head in heads if head is not None]
        return min([*since, waits[0][0]] if waits else since, default=None)

    def first(self, limit: int) -> list[Entry]:
        """The next `limit` entries in order; they stay."""
        taken = self.take(limit)
        for entry in taken:
            self._file(entry)
        return taken

    def after(self, entry: tuple[int, int, str] | None, limit: int) -> list[Entry]:
        """The first `limit` entries behind the one of this priority, queued time and key, in order; they stay."""
        found: list[Entry] = []
        for priority in sorted(self._lanes, reverse=True):
            if entry is not None and priority > entry[0]:
                continue
            place = entry[1:] if entry is not None and priority == entry[0] else None
            found += self._lanes[priority].after(place, limit - len(found), self._is_live)
            if len(found) >= limit:
                break
        return found

    def _is_live(self, entry: Entry) -> bool:
        return self._entries.get(entry.key) is entry
