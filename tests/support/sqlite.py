"""What the SQLite tests share: URLs, a second program that holds the file's lock, and scripts run as processes."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.processes import Ended, ran
from workqueue.backends import open_queue
from workqueue.backends.sqlite.backend import SqliteQueue
from workqueue.optional import Leased, LeaseRequest
from workqueue.testing import FakeClock

MANY = 1000


def sqlite_url(path: Path, **settings: str) -> str:
    query = "&".join(f"{name}={value}" for name, value in settings.items())
    return f"sqlite:///{path}?{query}"


def sqlite_queue(path: Path, clock: FakeClock | None = None, /, **settings: str) -> SqliteQueue:
    queue = open_queue(sqlite_url(path, **settings), clock=clock)
    assert isinstance(queue, SqliteQueue)
    return queue


async def lease(queue: SqliteQueue, limit: int = MANY) -> Leased:
    return await queue.lease(LeaseRequest(limit, MANY))


async def eligible(queue: SqliteQueue) -> list[str]:
    return [queued.key for queued in (await queue.enumerate(MANY)).queued]


@contextmanager
def locked(path: Path, how: str = "IMMEDIATE") -> Iterator[None]:
    """Meanwhile, another program is writing to the file, and takes its time."""
    with shell(path) as other:
        other.execute(f"BEGIN {how}")
        yield
        other.execute("ROLLBACK")


@contextmanager
def shell(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as an operator sees it in the sqlite3 shell; every statement is committed."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


# Makes a volume of $1 MiB at $2 that only the program after it sees. Root may do so, others in a namespace of users.
_MOUNT = ["sh", "-c", 'mount -t tmpfs -o "size=$1m" tmpfs "$2" && shift 2 && exec "$@"', "sh"]
_MOUNTED = (["unshare", "--mount", *_MOUNT], ["unshare", "--map-root-user", "--mount", *_MOUNT])
# Where neither works, the file and its log get half of it each; ulimit counts in units of 512 bytes.
_LIMITED = ["sh", "-c", 'ulimit -f $(($1 * 1024)) && shift 2 && exec "$@"', "sh"]


def on_a_small_volume(mib: int, folder: Path, script: str) -> Ended:
    """Run `script` as a process of its own, with a file on a volume of `mib` MiB as its argument."""
    volume = [str(mib), str(folder)]
    works = (each for each in _MOUNTED if shutil.which("unshare") and _ends_well([*each, *volume, "true"]))
    return python(script, folder / "q.db", before=[*next(works, _LIMITED), *volume])


def _ends_well(command: Sequence[str]) -> bool:
    return ran(command).code == 0


def python(script: str, *args: Any, before: Sequence[str] = (), complains: bool = False) -> Ended:
    """Run `script` as a process of its own, which the command `before` starts."""
    return ran([*before, sys.executable, "-c", script, *map(str, args)], complains=complains)
