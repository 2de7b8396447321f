"""For programs: the settings that every command shares, and the environment they may come from.

A flag wins over an environment variable, and that over the default. A variable that is set but empty counts as not set.
The Go programs' variables are accepted under their own names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from workqueue.backends.url import QueueURL
from workqueue.errors import InvalidSettingError, StoreUnusableError
from workqueue.programs.converters import URL, choice
from workqueue.programs.flags import Flag, naming
from workqueue.safe_text import shown_url

__all__ = ["DEFAULT_URL", "LogFlags", "OutputFlags", "QueueFlags", "is_receiver", "is_sqs", "queue_url"]

DEFAULT_URL = "sqlite:///workqueue.db"

_SQS = "sqs://"
_SQLITE = "sqlite:"
_RECEIVERS = ("grpc://", "grpcs://", "http://", "https://")


def queue_url(given: str | None, environ: Mapping[str, str]) -> str:
    """The queue to use: `given` (a flag or WORKQUEUE_URL), else what Go's WORKQUEUE_MODE says, else a SQLite file here.

    Raises:
        InvalidSettingError: WORKQUEUE_MODE is unknown or lacks its bucket, or contradicts WORKQUEUE_URL.
    """
    from_go = _url_of_mode(environ.get("WORKQUEUE_MODE", ""), environ.get("WORKQUEUE_BUCKET", ""))
    from_url = environ.get("WORKQUEUE_URL")
    # Only a flag may overrule: of two variables nobody knows which one was left behind by mistake, and enqueueing
    # into the wrong queue goes unnoticed.
    if given and given == from_url and from_go not in (None, from_url):
        raise InvalidSettingError(
            f"WORKQUEUE_URL and WORKQUEUE_MODE name two queues ({shown_url(from_go)} is the second): set one of them"
        )
    return given or from_go or DEFAULT_URL


def is_sqs(url: str) -> bool:
    """Whether `url` names an SQS queue rather than one of ours."""
    return url.startswith(_SQS)


def is_receiver(url: str) -> bool:
    """Whether `url` is a gRPC receiver's address instead of a queue's."""
    return url.startswith(_RECEIVERS)


def _url_of_mode(mode: str, bucket: str) -> str | None:
    if mode == "gcs":
        if not bucket:
            raise InvalidSettingError("WORKQUEUE_MODE=gcs needs WORKQUEUE_BUCKET, the name of the bucket")
        return f"gs://{bucket}"
    if bucket:  # without this, keys meant for a bucket would go into a file that nobody looks at
        raise InvalidSettingError("WORKQUEUE_BUCKET is read where WORKQUEUE_MODE=gcs: set that too, or only --queue")
    if mode not in ("", "inmem"):
        raise InvalidSettingError(f"WORKQUEUE_MODE: it takes gcs or inmem, not {mode!r}")
    return "memory://" if mode else None


def _only_to_look(url: str) -> str:
    if "read_only" in QueueURL.parse(url).settings:
        return url
    return f"{url}{'&' if '?' in url else '?'}read_only=true"


def _find(url: str) -> None:
    from workqueue.backends.sqlite.file import file_of

    path = file_of(QueueURL.parse(url)).path
    if not os.path.lexists(path):
        raise StoreUnusableError(f"there is no {path}: nothing was ever enqueued there")


@dataclass(frozen=True, slots=True)
class QueueFlags:
    """Which queue to work on."""

    queue: Annotated[
        str | None,
        Flag(f"the queue; else what WORKQUEUE_MODE and _BUCKET say, else {DEFAULT_URL}", ("WORKQUEUE_URL",), URL),
    ] = None

    def url(
        self, *, memory: bool = False, receiver: bool = False, sqs: bool = False, made: bool = True, look: bool = False
    ) -> str:
        """The URL of the queue.

        Args:
            memory: it may live in this process's memory, where no other finds it.
            receiver: it may be a gRPC receiver, which only takes and looks up keys.
            sqs: it may be an SQS queue, which only takes keys.
            made: a SQLite file is made where there is none.
            look: it is only looked at: no SQLite file is made, and rights to read one are enough.

        Raises:
            InvalidSettingError: it is one that it may not be, or as `queue_url`.
            StoreUnusableError: there is no such file, and it is not to be made.
        """
        url = queue_url(self.queue, os.environ)
        if is_sqs(url) and sqs:
            return url
        if is_sqs(url):
            raise InvalidSettingError(
                f"--queue {shown_url(url)} is an SQS queue: enqueue can send to it, this takes one of ours"
            )
        if not is_receiver(url):
            with naming("--queue or WORKQUEUE_URL"):
                QueueURL.parse(url)
        if is_receiver(url) and not receiver:
            raise InvalidSettingError(
                f"--queue {shown_url(url)} is a receiver: enqueue and get can ask it, this takes the queue's URL"
            )
        if url.startswith(_SQLITE) and look:
            return _only_to_look(url)
        if url.startswith(_SQLITE) and not made:
            _find(url)
        if url.startswith("memory:") and not memory:
            raise InvalidSettingError(
                f"--queue {shown_url(url)} lives inside one process, where no other program finds it; "
                "use it with dispatcher serve"
            )
        return url


@dataclass(frozen=True, slots=True)
class OutputFlags:
    """How results are written."""

    json: Annotated[bool, Flag("write one JSON document instead of a table", ("WORKQUEUE_JSON",))] = False


@dataclass(frozen=True, slots=True)
class LogFlags:
    """What a server writes to stderr."""

    log_level: Annotated[
        str, Flag("the least that is logged", ("WORKQUEUE_LOG_LEVEL",), choice("debug", "info", "warning", "error"))
    ] = "info"
    log_format: Annotated[
        str, Flag("lines of text, or of JSON for machines", ("WORKQUEUE_LOG_FORMAT",), choice("text", "json"))
    ] = "text"
