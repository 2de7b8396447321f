"""What the soak's processes write down, and what it says afterwards; knows nothing of leases.

Times are CLOCK_MONOTONIC, which all processes of a machine share. Records are fixed in size and written in one write
each, so that a kill -9 of their writer cuts none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Log", "Witness", "count_records", "read_log", "verdict"]

_RECORD = struct.Struct("=IQI")  # key number, nanoseconds, what it says

Record = tuple[int, int, int]

OVERLAP, OVER_LIMIT = 1, 2


class Log:
    """An append-only file of records."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, *records: Record) -> None:
        os.write(self._file, b"".join(_RECORD.pack(*record) for record in records))


def read_log(folder: Path, name: str) -> Iterator[Record]:
    """The records of every process under that name."""
    for path in folder.glob(f"{name}-*"):
        yield from _RECORD.iter_unpack(path.read_bytes())


def count_records(folder: Path, name: str) -> int:
    """How many records there are under that name."""
    return sum(path.stat().st_size for path in folder.glob(f"{name}-*")) // _RECORD.size


class Witness:
    """Sees attempts begin and end in this process: one exclusive file a key, and one for each slot of the limit.

    Two processes that have a key at once, or more attempts at once than the limit, are violations. A file whose process
    is dead is nobody's.
    """

    def __init__(self, workspace: Path, limit: int) -> None:
        self._keys, self._slots = workspace / "keys", workspace / "slots"
        for folder in (self._keys, self._slots):
            folder.mkdir(exist_ok=True)
        self._limit = limit
        self._me = workspace / f"me-{os.getpid()}"
        self._me.write_text(_identity(os.getpid()))
        self._lock = os.open(workspace / "lock", os.O_RDWR | os.O_CREAT)
        self.runs = Log(workspace / f"runs-{os.getpid()}")
        self.violations = Log(workspace / f"violations-{os.getpid()}")

    def begin(self, key: int) -> Path:
        """An attempt of `key` begins; returns its slot."""
        with self._alone():
            if not self._take(self._keys / str(key)):
                self.violations.write((key, time.monotonic_ns(), OVERLAP))
            first = random.randrange(self._limit)
            for number in range(self._limit):
                slot = self._slots / str((first + number) % self._limit)
                if self._take(slot):
                    return slot
        self.violations.write((key, time.monotonic_ns(), OVER_LIMIT))
        return self._slots / "none"

    def end(self, key: int, slot: Path, began_ns: int, attempts: int) -> None:
        """It is about to end well."""
        self.runs.write((key, began_ns, attempts))
        slot.unlink(missing_ok=True)
        (self._keys / str(key)).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else takes a file meanwhile.

        Of two who find the same dead holder one takes its place. And who finds every slot taken may say so: otherwise
        a slot behind it is freed and its holder's next attempt takes the free one ahead of it.
        """
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _take(self, path: Path) -> bool:
        return self._link(path) or self._take_from_the_dead(path)

    def _link(self, path: Path) -> bool:
        """Make `path` ours if it is free: exclusive as O_EXCL is, and never without our name in it."""
        try:
            os.link(self._me, path)
        except FileExistsError:
            return False
        return True

    def _take_from_the_dead(self, path: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):
            if _is_alive(path.read_text()):
                return False
            path.unlink()
        return self._link(path)


def _identity(pid: int) -> str:
    """A process, told from a later one with the same number by when it began."""
    return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[19]}"


def _is_alive(identity: str) -> bool:
    pid = identity.partition(" ")[0]
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state != "Z" and _identity(int(pid)) == identity
    except (FileNotFoundError, ProcessLookupError):
        return False


def verdict(workspace: Path) -> dict[str, int]:
    """What all the records say together."""
    last_sent: dict[int, int] = {}
    enqueues = 0
    for key, sent_ns, _ in read_log(workspace, "accepted"):
        enqueues += 1
        last_sent[key] = max(last_sent.get(key, 0), sent_ns)
    last_run: dict[int, int] = {}
    runs = 0
    for key, began_ns, _ in read_log(workspace, "runs"):
        runs += 1
        last_run[key] = max(last_run.get(key, 0), began_ns)
    kinds = Counter(what for _, _, what in read_log(workspace, "violations"))
    settled = Counter((token, lease) for token, lease, _ in read_log(workspace, "settled"))
    return {
        "enqueues accepted": enqueues,
        "different keys": len(last_sent),
        "runs that ended": runs,
        "accepted but never run after": sum(last_run.get(key, 0) < sent for key, sent in last_sent.items()),
        "run by two owners at once": kinds[OVERLAP],
        "begun beyond the limit": kinds[OVER_LIMIT],
        "leases settled twice": sum(count > 1 for count in settled.values()),
    }
