"""Stage 2: which file a SQLite queue is in, and how it is written: what a `sqlite://` URL says."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import unquote

from workqueue.backends.sqlite.boot_id import boot_id_of
from workqueue.backends.url import QueueURL, switch
from workqueue.errors import InvalidSettingError
from workqueue.lease import LeaseTimes
from workqueue.safe_text import shown_url

__all__ = ["QueueFile", "file_of"]


@dataclass(frozen=True, slots=True)
class QueueFile:
    """Where a queue is and how it is written.

    Args:
        path: the file, absolute.
        name: the queue within it.
        patience: how long a call waits for the file's lock.
        fsync: whether enqueues and settles are answered only once they are on disk.
        mode: who may read and write the file, its log and its shared memory, if it has yet to be made.
        boot: the id of this boot; None = the one that the kernel names.
        read_only: it is only looked at: nothing is made or written, and rights to read are enough.
    """

    path: str
    name: str = "default"
    patience: timedelta = timedelta(seconds=5)
    fsync: bool = True
    mode: int = 0o600
    boot: int | None = None
    read_only: bool = False

    def sides(self) -> tuple[str, str]:
        """The log and the shared memory, which SQLite keeps beside the file itself, wherever a link to it is."""
        real = os.path.realpath(self.path)
        return f"{real}-wal", f"{real}-shm"


def file_of(url: QueueURL, lease: LeaseTimes | None = None) -> QueueFile:
    """The file of `sqlite:///relative.db` or `sqlite:////absolute.db`.

    Takes the settings `name`, `synchronous` (`full` or `normal`), `busy_timeout` (how long a call waits for the file's
    lock, default 5s or what the lease allows), `mode` (the rights of a new file, default 0600), `boot_id` (where the
    kernel's is hidden) and `read_only` (`true`: only to look); `lease` and `renew` too, unless they were taken before.
    """
    default = QueueFile(_path(url))
    return QueueFile(
        path=default.path,
        name=url.name(),
        patience=url.timeout("busy_timeout", default.patience, lease or url.lease_times()),
        fsync=url.take("synchronous", _synchronous, default.fsync),
        mode=url.take("mode", _mode, default.mode),
        boot=url.take("boot_id", boot_id_of, default.boot),
        read_only=url.take("read_only", switch, default.read_only),
    )


def _path(url: QueueURL) -> str:
    parts = url.parts
    path = unquote(parts.path[1:])
    if parts.netloc or parts.fragment or not path or path == ":memory:" or "\0" in path:
        raise InvalidSettingError(
            f"{shown_url(parts.geturl())!r} names no file: write sqlite:///relative.db or sqlite:////absolute/path.db, "
            "'#' and '?' in a name as %23 and %3F; for a queue in memory use memory://"
        )
    try:
        return os.path.abspath(path)
    except OSError as error:
        raise InvalidSettingError(
            f"the working directory is gone ({error.strerror}): go elsewhere, or write sqlite:////absolute/path.db"
        ) from error


def _mode(text: str) -> int:
    if not re.fullmatch("0?[67][0-7]{2}", text):
        raise ValueError("it takes octal rights with which the owner may read and write, such as 0600 or 0660")
    return int(text, 8)


def _synchronous(text: str) -> bool:
    if text not in ("full", "normal"):
        raise ValueError("it takes full or normal")
    return text == "full"
