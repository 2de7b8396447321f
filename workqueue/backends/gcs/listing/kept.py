"""Stage 3: the queued keys as of the last listing, in the order in which they start, packed to some 120 bytes each.

A backlog of hundreds of thousands takes minutes to list and must not be listed for every round. A key is one `bytes`
whose beginning sorts as keys start; a page of a listing is one sorted run, and a heap of the runs' heads gives the next
key without ever sorting the whole.
"""

from __future__ import annotations

import bisect
import heapq
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from workqueue.backends.gcs.api.objects import Stored
from workqueue.backends.gcs.metadata import NO_TIME, entry_of, priority_text, time_text
from workqueue.rules import Entry

__all__ = ["Candidate", "Kept", "pack", "unpack"]

_BIAS = 1 << 62
_ORDER = struct.Struct(">QQ")  # priority descending, queued time
_PRIORITY_BYTES = 8
_DUE = struct.Struct(">Q")  # precedes the rest while the key waits for its not-before
# generation, metageneration, created, size, what is canonical in the metadata, the bytes of the key
_TRAILER = struct.Struct(">QIQIBH")

_LISTED, _PLAIN_PRIORITY, _PLAIN_QUEUED, _NO_NOT_BEFORE = 1, 2, 4, 8
_NO_ROOM = 1.25  # how far a listing may grow beyond its bound before it is cut back to it


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queued key, unpacked.

    Args:
        key: its name without folder.
        stored: the object, to be pinned; its name is left empty.
        entry: what it says.
        listed: it was seen in a listing, rather than stored by ourselves since.
    """

    key: str
    stored: Stored
    entry: Entry
    listed: bool

    @property
    def version(self) -> tuple[int, int]:
        return self.stored.generation, self.stored.metageneration


def pack(key: str, stored: Stored, entry: Entry, *, listed: bool) -> bytes:
    """The record of a queued key; what its metadata says in the usual form is not kept twice."""
    rest = dict(stored.metadata)
    flags = _LISTED if listed else 0
    if rest.get("priority") == priority_text(entry.priority):
        flags |= _PLAIN_PRIORITY
        del rest["priority"]
    if rest.get("queued-time") == time_text(entry.queued_us):
        flags |= _PLAIN_QUEUED
        del rest["queued-time"]
    if rest.get("not-before") == NO_TIME:
        flags |= _NO_NOT_BEFORE
        del rest["not-before"]
    name = key.encode()
    return b"".join(
        (
            _ORDER.pack(_BIAS - entry.priority, entry.queued_us),
            name,
            b"\0",  # lets a name sort before those that it begins
            json.dumps(rest, separators=(",", ":")).encode() if rest else b"",
            _TRAILER.pack(
                stored.generation,
                stored.metageneration,
                stored.created_us,
                min(stored.size, 2**32 - 1),
                flags,
                len(name),
            ),
        )
    )


def unpack(record: bytes) -> Candidate:
    """What `pack` packed."""
    generation, metageneration, created_us, size, flags, length = _TRAILER.unpack_from(
        record, len(record) - _TRAILER.size
    )
    priority, queued_us = _ORDER.unpack_from(record)
    end = _ORDER.size + length
    key, rest = record[_ORDER.size : end].decode(), record[end + 1 : -_TRAILER.size]
    metadata: dict[str, str] = json.loads(rest) if rest else {}
    if flags & _PLAIN_PRIORITY:
        metadata["priority"] = priority_text(_BIAS - priority)
    if flags & _PLAIN_QUEUED:
        metadata["queued-time"] = time_text(queued_us)
    if flags & _NO_NOT_BEFORE:
        metadata["not-before"] = NO_TIME
    stored = Stored("", generation, metageneration, created_us, size, metadata)
    return Candidate(key, stored, entry_of(metadata, key, created_us, size), bool(flags & _LISTED))


class Kept:
    """Queued keys: ready, waiting for their not-before, or set aside because they are in progress (twins).

    `keep` bounds how many; of more, those that would start last are forgotten until the next listing.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._heads: list[tuple[bytes, list[bytes]]] = []  # heap: the head of each run, and the rest of it, best last
        self._due: list[bytes] = []  # heap of not-before + record
        self.aside: dict[str, bytes] = {}
        self._passed: dict[int, list[bytes]] = {}  # ready, but left to others: by how many of them are ahead of us
        self.ready = 0
        self.forgotten = 0
        self.max_attempts = 0
        self._oldest_us = 0

    def add(self, key: str, stored: Stored, entry: Entry, now_us: int, *, listed: bool) -> None:
        """File one key that is not in progress."""
        record = pack(key, stored, entry, listed=listed)
        self._note(entry)
        if entry.not_before_us > now_us:
            heapq.heappush(self._due, _DUE.pack(entry.not_before_us) + record)
        else:
            self._note_eligible(max(entry.queued_us, entry.not_before_us))
            self.push(record)

    def add_page(self, page: Iterable[tuple[str, Stored, Entry]], now_us: int, running: Mapping[str, object]) -> None:
        """File one page of a listing; keys that are `running` are set aside."""
        run: list[bytes] = []
        for key, stored, entry in page:
            record = pack(key, stored, entry, listed=True)
            self._note(entry)
            if key in running:
                self.aside[key] = record
            elif entry.not_before_us > now_us:
                heapq.heappush(self._due, _DUE.pack(entry.not_before_us) + record)
            else:
                self._note_eligible(max(entry.queued_us, entry.not_before_us))
                run.append(record)
        run.sort(reverse=True)
        self._push_run(run)
        if self.ready + len(self._due) > self._keep * _NO_ROOM:
            self._forget()

    def push(self, record: bytes) -> None:
        """File the record of a key that may start."""
        heapq.heappush(self._heads, (record, []))
        self.ready += 1

    def pop(self) -> bytes | None:
        """Take out the key that starts next."""
        if not self._heads:
            return None
        record, run = self._heads[0]
        if run:
            heapq.heapreplace(self._heads, (run.pop(), run))
        else:
            heapq.heappop(self._heads)
        self.ready -= 1
        return record

    @property
    def passed(self) -> int:
        """How many keys that may start are left to other dispatchers."""
        return sum(map(len, self._passed.values()))

    def pass_over(self, record: bytes, ahead: int) -> None:
        """Leave a key to other dispatchers, of whom so many take it before this one."""
        self._passed.setdefault(ahead, []).append(record)

    def take_passed(self, wanted: int) -> list[bytes]:
        """Take out some of what was left to others: of the highest priority, from the end that they come to last.

        Those first where the fewest are ahead of us: several dispatchers that run out of keys then do not race, either.
        """
        left = [self._passed[ahead] for ahead in sorted(self._passed) if self._passed[ahead]]
        for records in left:
            records.sort()
        first = min((records[0][:_PRIORITY_BYTES] for records in left), default=b"")
        taken: list[bytes] = []
        for records in left:
            end = bisect.bisect_right(records, first, key=lambda record: record[:_PRIORITY_BYTES])
            begin = max(end - wanted + len(taken), 0)
            taken += records[begin:end]
            del records[begin:end]
        return taken

    def promote(self, now_us: int) -> None:
        """Make ready what came due."""
        bound = _DUE.pack(now_us + 1)
        while self._due and self._due[0] < bound:
            due = heapq.heappop(self._due)
            self._note_eligible(max(_DUE.unpack_from(due)[0], _ORDER.unpack_from(due, _DUE.size)[1]))
            self.push(due[_DUE.size :])

    def unset_aside(self, running: Mapping[str, object], now_us: int) -> None:
        """File the twins of keys that are no longer `running`."""
        for key in [key for key in self.aside if key not in running]:
            found = unpack(self.aside.pop(key))
            # Not `listed`: the attempt that ended meanwhile may have left a dead letter since.
            self.add(key, found.stored, found.entry, now_us, listed=False)

    def next_due_us(self) -> int | None:
        """When the next key that waits comes due."""
        return _DUE.unpack_from(self._due[0])[0] if self._due else None

    @property
    def delayed(self) -> int:
        """How many wait for their not-before."""
        return len(self._due)

    def soonest(self, limit: int) -> Iterator[Candidate]:
        """The next ones to come due, soonest first; they stay."""
        for due in heapq.nsmallest(limit, self._due):
            yield unpack(due[_DUE.size :])

    def waiting_us(self, now_us: int) -> int:
        """How long the longest-waiting ready key could have been started by now, as of the last listing."""
        return max(now_us - self._oldest_us, 0) if self._oldest_us and self.ready else 0

    def _note(self, entry: Entry) -> None:
        self.max_attempts = max(self.max_attempts, entry.attempts)

    def _note_eligible(self, since_us: int) -> None:
        self._oldest_us = min(self._oldest_us, since_us) if self._oldest_us else since_us

    def _push_run(self, run: list[bytes]) -> None:
        if run:
            self.ready += len(run)
            heapq.heappush(self._heads, (run.pop(), run))

    def _forget(self) -> None:
        """Cut the listing back to its bound: first those that wait longest for their time, then the last in order."""
        before = self.ready + len(self._due)
        ready = sorted((record for head, run in self._heads for record in (head, *run)), reverse=True)
        del ready[: max(len(ready) - self._keep, 0)]
        self._due = heapq.nsmallest(max(self._keep - len(ready), self._keep // 10), self._due)
        self._heads, self.ready = [], 0
        self._push_run(ready)
        self.forgotten += before - self.ready - len(self._due)
