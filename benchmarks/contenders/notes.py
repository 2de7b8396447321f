"""What a traced process notes: a record of 48 bytes each, in mapped memory, so that a kill -9 loses none."""

from __future__ import annotations

import itertools
import mmap
import os
import struct
import time
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import NamedTuple

__all__ = ["Kind", "Note", "Notes", "read", "since_before"]

_RECORD = struct.Struct("=6Q")
_ROOM = 1_000_000  # records; a file has no blocks where nothing was written


class Kind(IntEnum):
    """The stations of a key in their order, then what else a process does."""

    CALLED = 1
    ENQUEUE_SENT = 2
    WOKEN = 3
    WAIT_RETURNED = 4
    LEASE_SENT = 5
    LEASE_ANSWERED = 6
    LEASED = 7
    STEPPED = 8
    STARTED = 9

    ENQUEUED = 20
    OTHER_SENT = 21
    OTHER_ANSWERED = 22
    REDIS = 30

    GC_0 = 40
    GC_1 = 41
    GC_2 = 42
    RENEWER = 43
    LOOP_WATCH = 44
    RUN_TIMES = 45


class Note(NamedTuple):
    """One note; times are nanoseconds, `at` those of the machine's monotonic clock.

    `about` is the key's number where it is called and started, and how long it took of what else ran. `ran`, `waited`
    for a core and `switched` off it against its will are the process's, Redis's at `Kind.REDIS`: since it began as
    written, and since its note before as `since_before` returns them.
    """

    kind: Kind
    at: int
    about: int
    ran: int
    waited: int
    switched: int


class Notes:
    """Writes to a new file, from any thread; `redis` is the server's process."""

    def __init__(self, path: Path, redis: int) -> None:
        with path.open("w+b") as file:
            file.truncate(_ROOM * _RECORD.size)
            self._memory = mmap.mmap(file.fileno(), 0)
        self._places = itertools.count(0, _RECORD.size)
        self._own = os.open("/proc/self/schedstat", os.O_RDONLY)
        self._redis = os.open(f"/proc/{redis}/schedstat", os.O_RDONLY)

    def add(self, kind: Kind, about: int = 0) -> None:
        """Note that it is so far, now."""
        at, waited, switched = time.monotonic_ns(), _ran_and_waited(self._own)[1], getrusage(RUSAGE_SELF).ru_nivcsw
        self._write(Note(kind, at, about, time.process_time_ns(), waited, switched))

    def add_redis(self) -> None:
        """Note what Redis has done so far; exact while it sleeps."""
        self._write(Note(Kind.REDIS, time.monotonic_ns(), 0, *_ran_and_waited(self._redis), 0))

    def _write(self, note: Note) -> None:
        _RECORD.pack_into(self._memory, next(self._places), *note)


def _ran_and_waited(schedstat: int) -> tuple[int, int]:
    ran, waited, _ = os.pread(schedstat, 100, 0).split()
    return int(ran), int(waited)


def read(path: Path) -> list[Note]:
    """All notes of one process."""
    records = itertools.takewhile(lambda record: record[0], _RECORD.iter_unpack(path.read_bytes()))
    return [Note(Kind(kind), *rest) for kind, *rest in records]


def since_before(notes: Iterable[Note]) -> list[Note]:
    """What was counted since a process began, as what was since its note before; the first is left out."""
    return [
        note._replace(ran=note.ran - last.ran, waited=note.waited - last.waited, switched=note.switched - last.switched)
        for last, note in itertools.pairwise(notes)
    ]
