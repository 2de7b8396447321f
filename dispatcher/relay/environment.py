"""The settings of `dispatcher relay`, from flags and environment. The Go relay's variables are accepted as they are."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from dispatcher.relay.settings import RelaySettings
from workqueue.backends.url import QueueURL, size, url_beside, url_with
from workqueue.errors import InvalidSettingError
from workqueue.programs.access import HTTP_PORT, PORT, ListenFlags
from workqueue.programs.converters import DURATION_OR_ZERO, FILE, TEXT, URL, Converter, listed, whole
from workqueue.programs.flags import Flag, naming

if TYPE_CHECKING:
    from workqueue.access.security import ClientSecurity
    from workqueue.web.front import Front

__all__ = ["AddressFlags", "RelayFlags", "RelayListen", "StoreFlags", "TargetCallFlags", "note_what_is_ignored"]

log = logging.getLogger(__name__)

_DEFAULT = RelaySettings()
_DEFAULT_FILE = "relay.db"
_SIZE = Converter("SIZE", size)
_MAGIC = b"SQLite format 3\0"


def _milliseconds(text: str) -> timedelta:
    if text.isascii() and text.isdigit():  # as the Go relay has it
        return timedelta(milliseconds=int(text[:12]))
    converted: timedelta = DURATION_OR_ZERO.convert(text)
    return converted


def _listen(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("it takes [HOST]:PORT, such as 127.0.0.1:8091 or :80")
    return host.removeprefix("[").removesuffix("]"), int(port)


@dataclass(frozen=True, slots=True)
class StoreFlags:
    """Where requests are kept."""

    queue: Annotated[
        str | None,
        Flag("the queue of the requests: sqlite, redis or gs; else --transaction-log", ("WORKQUEUE_URL",), URL),
    ] = None
    transaction_log: Annotated[
        Path | None,
        Flag(f"or the SQLite file that they are in; else {_DEFAULT_FILE}", ("TRANSACTION_LOG",), FILE),
    ] = None

    def urls(self, max_payload: int, outcome_bytes: int) -> tuple[str, str]:
        """The URLs of the queue of the requests, and of the one of their outcomes beside it.

        Raises:
            InvalidSettingError: both flags are given, a URL is none, or the file is something else.
        """
        if self.queue is not None and self.transaction_log is not None:
            raise InvalidSettingError(
                "--queue (WORKQUEUE_URL) and --transaction-log (TRANSACTION_LOG): give one of them"
            )
        if self.queue is None:
            return _urls(_url_of(self.transaction_log or Path(_DEFAULT_FILE)), max_payload, outcome_bytes)
        with naming("--queue or WORKQUEUE_URL"):
            return _urls(self.queue, max_payload, outcome_bytes)


@dataclass(frozen=True, slots=True)
class AddressFlags:
    """Where requests come in, as the Go relay has it."""

    address: Annotated[
        tuple[str, int] | None,
        Flag("in place of --host and --http-port", ("LISTEN",), Converter("[HOST]:PORT", _listen), "--listen"),
    ] = None


@dataclass(frozen=True, slots=True)
class RelayListen:
    """Where requests come in."""

    listen: ListenFlags
    address: AddressFlags
    http_port: Annotated[
        int, Flag("requests, probes and /metrics; 0 = any free one", ("WORKQUEUE_HTTP_PORT", "PORT"), PORT)
    ] = HTTP_PORT

    def front(self) -> Front:
        """Where the relay is reached.

        Raises:
            InvalidSettingError: it would be reachable from elsewhere without TLS.
        """
        if self.address.address is None:
            return self.listen.front(self.http_port)
        host, port = self.address.address
        from workqueue.web.front import Front

        security = self.listen.security()
        with naming("--listen or LISTEN"):
            return Front(host or "0.0.0.0", port, self.listen.probe_port, security)


@dataclass(frozen=True, slots=True)
class RelayFlags:
    """Whom a relay calls, and how."""

    allow_target: Annotated[
        tuple[str, ...],
        Flag(
            "hosts that may be called: host, host:port, *.domain, address, network",
            ("WORKQUEUE_ALLOW_TARGET",),
            listed("TARGET"),
        ),
    ] = ()
    allow_any_target: Annotated[
        bool, Flag("call whatever is asked for, loopback and metadata servers too", ("WORKQUEUE_ALLOW_ANY_TARGET",))
    ] = False
    per_target: Annotated[int, Flag("calls at a time to one target", ("WORKER",), whole(1, 10_000))] = (
        _DEFAULT.per_target
    )
    concurrency: Annotated[
        int,
        Flag("requests in hand at a time, over all relays; 0 = ten times that", ("WORKQUEUE_CONCURRENCY",), whole(0)),
    ] = _DEFAULT.concurrency
    retry_limit: Annotated[
        int, Flag("give a request up at this failed try; 0 = never", ("RETRY_LIMIT", "RETRYLIMIT"), whole(0))
    ] = _DEFAULT.retry_limit
    default_timeout: Annotated[
        timedelta,
        Flag(
            "how long a call may take; a number without a unit is milliseconds",
            ("DEFAULT_TIMEOUT",),
            Converter("DURATION", _milliseconds),
        ),
    ] = _DEFAULT.timeout
    max_body: Annotated[int, Flag("the largest body of a request", ("WORKQUEUE_MAX_BODY",), _SIZE)] = _DEFAULT.max_body
    most_stored: Annotated[
        int, Flag("refuse requests while N wait; 0 = take all", ("WORKQUEUE_MOST_STORED",), whole(0))
    ] = _DEFAULT.most_stored
    event_sourcing: Annotated[bool, Flag("keep delivered requests with their outcomes", ("EVENT_SOURCING",))] = False
    keep_delivered: Annotated[
        timedelta, Flag("for how long, with --event-sourcing", ("WORKQUEUE_KEEP_DELIVERED",), DURATION_OR_ZERO)
    ] = timedelta(days=7)
    keep_dead_letters: Annotated[
        timedelta,
        Flag(
            "remove requests this long after they were given up; 0s = never",
            ("WORKQUEUE_KEEP_DEAD_LETTERS",),
            DURATION_OR_ZERO,
        ),
    ] = _DEFAULT.keep_dead_letters
    drain_timeout: Annotated[
        timedelta, Flag("on SIGTERM calls may go on for this", ("WORKQUEUE_DRAIN_TIMEOUT",), DURATION_OR_ZERO)
    ] = _DEFAULT.drain_timeout
    owner: Annotated[str, Flag("recorded with requests in hand, and a metric label", ("WORKQUEUE_OWNER",), TEXT)] = ""

    def __post_init__(self) -> None:
        if not self.allow_target and not self.allow_any_target:
            raise InvalidSettingError(
                "--allow-target (WORKQUEUE_ALLOW_TARGET) says which hosts may be called; or --allow-any-target"
            )

    def settings(self) -> RelaySettings:
        """These flags as the relay takes them.

        Raises:
            InvalidSettingError: one is out of range.
        """
        return RelaySettings(
            per_target=self.per_target,
            concurrency=self.concurrency,
            retry_limit=self.retry_limit,
            timeout=self.default_timeout,
            max_body=self.max_body,
            keep_delivered=self.keep_delivered if self.event_sourcing else timedelta(0),
            keep_dead_letters=self.keep_dead_letters,
            most_stored=self.most_stored,
            drain_timeout=self.drain_timeout,
        )


@dataclass(frozen=True, slots=True)
class TargetCallFlags:
    """How targets are called over TLS. A relay shows them no token of its own: a request brings what it needs."""

    ca: Annotated[Path | None, Flag("authorities that targets are checked against, PEM", ("WORKQUEUE_CA",), FILE)] = (
        None
    )
    client_cert: Annotated[
        Path | None, Flag("certificate to show to targets, PEM", ("WORKQUEUE_CLIENT_CERT",), FILE)
    ] = None
    client_key: Annotated[Path | None, Flag("its private key, PEM", ("WORKQUEUE_CLIENT_KEY",), FILE)] = None

    def security(self) -> ClientSecurity:
        """These flags as a client takes them; files are read and checked.

        Raises:
            InvalidSettingError: a file is not what it should be, or one is missing.
        """
        from workqueue.access.security import ClientSecurity

        with naming("--ca, --client-cert, --client-key"):
            return ClientSecurity(self.ca, self.client_cert, self.client_key)


def note_what_is_ignored(environ: Mapping[str, str]) -> None:
    """Log what a user of the Go relay has set and would look for in vain."""
    if environ.get("DEAD_LETTER"):
        log.info("DEAD_LETTER is ignored: requests that were given up stay in the queue, see /_relay/dead-letters")


def _url_of(file: Path) -> str:
    """The queue in a SQLite file.

    Raises:
        InvalidSettingError: there is something else in it, such as the log of the Go relay.
    """
    try:
        with file.open("rb") as opened:
            beginning = opened.read(len(_MAGIC))
    except OSError:  # not there yet, or not readable, which opening it says better
        beginning = b""
    if beginning not in (b"", _MAGIC):
        raise InvalidSettingError(
            f"--transaction-log or TRANSACTION_LOG: {file} is no SQLite file; if it is the log of the Go relay, "
            "let that relay deliver what is in it, then name a new file"
        )
    return f"sqlite:///{quote(str(file.absolute()))}?name=relay"


def _urls(url: str, max_payload: int, outcome_bytes: int) -> tuple[str, str]:
    parsed = QueueURL.parse(url)
    if parsed.scheme == "memory":
        raise InvalidSettingError("memory:// forgets everything with its process: a relay takes sqlite, redis or gs")
    given = parsed.take("max_payload", size, 0)
    if given and given < max_payload:
        raise InvalidSettingError(
            f"max_payload={given} is too little for --max-body: leave it out, or say {max_payload}"
        )
    requests = url if given else url_with(url, "max_payload", max_payload)
    return requests, url_with(url_beside(url, "outcomes"), "max_payload", max(given, max_payload) + outcome_bytes)
