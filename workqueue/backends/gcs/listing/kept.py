"""Stage 3: the queued keys as of one listing, in the order in which they start.

A backlog of hundreds of thousands takes minutes to list and must not be listed for every round. A key is one packed
record, a page of a listing one sorted run of them, and a heap of the runs' heads gives the next key without ever
sorting the whole. Each record is in one of four places: ready, delayed (its time has not come), a twin (its key is in
progress), or left to other dispatchers.
"""

from __future__ import annotations

import bisect
import heapq
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from workqueue.backends.gcs.listing.packed import Candidate, pack, priority_bytes, queued_us_of, unpack
from workqueue.clock import LATEST_US

__all__ = ["Kept"]

_DUE = struct.Struct(">Q")  # precedes the record of a delayed key
_SPARE = 1.25  # how far a listing may grow beyond its bound before it is cut back to it


class Kept:
    """Queued keys in order.

    Args:
        keep: at most this many ready and delayed keys; of more, those that would start last are forgotten until the
            next listing.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._runs: list[tuple[bytes, list[bytes]]] = []  # heap: the head of each run, and the rest of it, best last
        self._delayed: list[bytes] = []  # heap of not-before + record
        self._left: dict[int, list[bytes]] = {}  # by how many dispatchers take the key before this process
        self._oldest_us = 0
        self.twins: dict[str, bytes] = {}
        self.ready = 0
        self.forgotten = 0
        self.max_attempts = 0

    # filing

    def add(self, candidate: Candidate, now_us: int, running: Mapping[str, object]) -> None:
        """File one key, as a twin if it is `running`."""
        record = self._startable(candidate, now_us, running)
        if record is not None:
            self._push_run([record])

    def add_page(self, page: Iterable[Candidate], now_us: int, running: Mapping[str, object]) -> None:
        """File one page of a listing; keys that are `running` are twins."""
        records = (self._startable(candidate, now_us, running) for candidate in page)
        self._push_run(sorted((record for record in records if record is not None), reverse=True))
        if self.ready + len(self._delayed) > self._keep * _SPARE:
            self._forget()

    def _startable(self, candidate: Candidate, now_us: int, running: Mapping[str, object]) -> bytes | None:
        """The record of a key that may start; one that may not is filed where it waits."""
        record, entry = pack(candidate), candidate.entry
        self.max_attempts = max(self.max_attempts, entry.attempts)
        if candidate.key in running:
            self.twins[candidate.key] = record
            return None
        if entry.not_before_us > now_us:
            heapq.heappush(self._delayed, _DUE.pack(entry.not_before_us) + record)
            return None
        self._note_eligible(max(entry.queued_us, entry.not_before_us))
        return record

    def add_twin(self, candidate: Candidate) -> None:
        """File a key that turned out to be in progress."""
        self.twins[candidate.key] = pack(candidate)

    def end_twins(self, running: Mapping[str, object], now_us: int) -> None:
        """File the twins of keys that are no longer `running` where they belong now."""
        for key in [key for key in self.twins if key not in running]:
            # No longer `listed`: the attempt that ended meanwhile may have left a dead letter since.
            self.add(replace(unpack(self.twins.pop(key)), listed=False), now_us, {})

    def promote(self, now_us: int) -> None:
        """Make ready what came due."""
        bound = _DUE.pack(now_us + 1)
        while self._delayed and self._delayed[0] < bound:
            delayed = heapq.heappop(self._delayed)
            due_us, record = _DUE.unpack_from(delayed)[0], delayed[_DUE.size :]
            self._note_eligible(max(due_us, queued_us_of(record)))
            self._push_run([record])

    # taking out

    def pop(self) -> bytes | None:
        """Take out the key that starts next."""
        if not self._runs:
            return None
        record, run = self._runs[0]
        if run:
            heapq.heapreplace(self._runs, (run.pop(), run))
        else:
            heapq.heappop(self._runs)
        self.ready -= 1
        return record

    def leave(self, record: bytes, ahead: int) -> None:
        """Leave a key that was taken out to other dispatchers, of whom `ahead` take it before this process."""
        self._left.setdefault(ahead, []).append(record)

    @property
    def left(self) -> int:
        """How many keys that may start are left to other dispatchers."""
        return sum(map(len, self._left.values()))

    def take_left(self, wanted: int) -> list[bytes]:
        """Take out up to `wanted` keys that were left to others: of the highest priority, those that they come to last.

        Those first where the fewest are ahead of us: several dispatchers that run out of keys then do not race, either.
        """
        groups = [self._left[ahead] for ahead in sorted(self._left) if self._left[ahead]]
        for records in groups:
            records.sort()
        highest = min((priority_bytes(records[0]) for records in groups), default=b"")
        taken: list[bytes] = []
        for records in groups:
            end = bisect.bisect_right(records, highest, key=priority_bytes)
            begin = max(end - wanted + len(taken), 0)
            taken += records[begin:end]
            del records[begin:end]
        return taken

    # looking at

    @property
    def startable(self) -> int:
        """How many keys may start now, by whatever dispatcher."""
        return self.ready + self.left

    @property
    def delayed(self) -> int:
        """How many keys wait for their not-before."""
        return len(self._delayed)

    def next_due_us(self) -> int | None:
        """When the next delayed key comes due."""
        return _DUE.unpack_from(self._delayed[0])[0] if self._delayed else None

    def soonest(self, limit: int) -> Iterator[Candidate]:
        """The next delayed keys to come due, soonest first; they stay."""
        for delayed in heapq.nsmallest(limit, self._delayed):
            yield unpack(delayed[_DUE.size :])

    def behind(self, after: bytes) -> Iterator[bytes]:
        """The records of keys that may start, by whatever dispatcher, from behind `after` on in order; they stay."""
        runs = [_run_behind(head, rest, after) for head, rest in self._runs]
        left = sorted(record for records in self._left.values() for record in records if record > after)
        return heapq.merge(*runs, left)

    def later(self, due_us: int, after: bytes) -> Iterator[bytes]:
        """The records of delayed keys, soonest first, from behind the one of this not-before on; they stay."""
        bound = _DUE.pack(min(max(due_us, 0), LATEST_US)) + after
        for delayed in sorted(each for each in self._delayed if each > bound):
            yield delayed[_DUE.size :]

    def waiting_us(self, now_us: int) -> int:
        """How long the longest-waiting ready key could have been started by now, as of the last listing."""
        return max(now_us - self._oldest_us, 0) if self._oldest_us and self.ready else 0

    def _note_eligible(self, since_us: int) -> None:
        self._oldest_us = min(self._oldest_us, since_us) if self._oldest_us else since_us

    # runs

    def _push_run(self, run: list[bytes]) -> None:
        """Take in sorted records, the best last."""
        if run:
            self.ready += len(run)
            heapq.heappush(self._runs, (run.pop(), run))

    def _forget(self) -> None:
        """Cut the listing back to its bound: first those that wait longest for their time, then the last in order."""
        before = self.ready + len(self._delayed)
        ready = sorted((record for head, rest in self._runs for record in (head, *rest)), reverse=True)
        del ready[: max(len(ready) - self._keep, 0)]
        self._delayed = heapq.nsmallest(max(self._keep - len(ready), self._keep // 10), self._delayed)
        self._runs, self.ready = [], 0
        self._push_run(ready)
        self.forgotten += before - self.ready - len(self._delayed)


def _run_behind(head: bytes, rest: list[bytes], after: bytes) -> Iterator[bytes]:
    """What of a run, the best of which is its head and then the last of the rest, stands behind `after`."""
    if head > after:
        yield head
    ends = bisect.bisect_left(rest, True, key=lambda record: record <= after)
    yield from (rest[at] for at in range(ends - 1, -1, -1))
