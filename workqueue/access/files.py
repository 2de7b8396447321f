"""What is made of files that somebody replaces: certificates, keys, tokens. A change is noticed at the next use."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from workqueue.errors import InvalidSettingError

__all__ = ["Followed", "open_files_allowed", "raise_open_files"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Stamp = tuple[tuple[int, int, int, int], ...]

_ENOUGH_FILES = 65_536
_SETTLED_NS = 2_000_000_000  # a file changed twice within one tick of its file system looks as if it changed once


class Followed(Generic[_T]):
    """What `make` makes of `paths`, made anew whenever one of them has changed. May be asked from any thread.

    It is the same object for as long as the files say the same. Whoever uses it may pay for another one with a new
    channel; and a gRPC server that is given another one while it shakes hands with several clients may crash.

    What cannot be made, of a new certificate whose key has not come yet for instance, is logged once for each change.
    What was made before is used on.

    Args:
        paths: the files to look at; each look costs a microsecond or two for each.
        make: reads them.
        what: names it in the log.

    Raises:
        InvalidSettingError: `make` failed the first time.
    """

    def __init__(self, paths: Sequence[Path], make: Callable[[], _T], what: str) -> None:
        self._paths = paths
        self._make = make
        self._what = what
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._made_ns = time.time_ns()
        self._digest = self._read()
        self._made = make()

    def current(self) -> _T:
        """What is made of the files as they are, or were when they last made sense."""
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp or self._unsettled(stamp):
                self._remake(stamp)
            return self._made

    def _remake(self, stamp: _Stamp) -> None:
        changed, self._stamp, self._made_ns = stamp != self._stamp, stamp, time.time_ns()
        digest = self._read()
        if digest and digest == self._digest:
            return
        try:
            self._made = self._make()
            self._digest = digest
        except (InvalidSettingError, OSError) as error:
            if changed:
                log.warning("still using the previous %s: %s", self._what, error)

    def _unsettled(self, stamp: _Stamp) -> bool:
        """Whether a file may have changed after it was read without looking changed."""
        return any(abs(self._made_ns - changed_ns) < _SETTLED_NS for *_, changed_ns in stamp)

    def _read(self) -> bytes:
        """What the files say, as a digest, which keeps no key in memory; empty = one of them cannot be read."""
        digest = hashlib.sha256()
        try:
            for path in self._paths:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError:  # `make` says so
            return b""
        return digest.digest()

    def _look(self) -> _Stamp:
        return tuple(_stamp_of(path) for path in self._paths)


def _stamp_of(path: Path) -> tuple[int, int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0, 0, 0
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def open_files_allowed() -> int:
    """How many files and connections this process may have open at once."""
    try:
        import resource
    except ImportError:  # Windows
        return 512
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1_000_000


def raise_open_files() -> None:
    """Allow this process as many open files as it may ask for, as Go programs do; at most 65,536."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
