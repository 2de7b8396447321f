"""Stage 2: where a queue lies in Cloud Storage: bucket, prefix, endpoint, and how its objects are called."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import unquote

from workqueue.backends.url import QueueURL, duration, switch
from workqueue.errors import InvalidKeyError, InvalidSettingError
from workqueue.interface import KeyStatus
from workqueue.key import MAX_KEY_BYTES, validate_key
from workqueue.lease import LeaseTimes
from workqueue.safe_text import shown_url

__all__ = ["DEFAULT_LEASE", "DEFAULT_REFRESH", "GCSSettings", "Place", "check_owner", "may_exist"]

DEFAULT_LEASE = LeaseTimes(timedelta(minutes=15), timedelta(minutes=5))
"""Longer than elsewhere: an object takes about one write a second, and every renewal is billed."""

DEFAULT_REFRESH = timedelta(seconds=30)

_PUBLIC = "https://storage.googleapis.com"
_EMULATOR = "STORAGE_EMULATOR_HOST"
_MAX_NAME_BYTES = 1024
_FOLDERS = ("queued", "in-progress", "dead-letter")
_BEYOND_NAMES = frozenset("\0\r\n")
_LONGEST_FOLDER = len("in-progress/")
_MOST_PREFIX_BYTES = 500  # which leaves keys as many
_BUCKET = re.compile(r"[a-z0-9]([a-z0-9._-]{0,220}[a-z0-9])?")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,99}")
_ACCOUNT = re.compile(r"[^@\s/]+@[^@\s/]+")
_MAX_OWNER_BYTES = 255
_TIMEOUT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class GCSSettings:
    """Where the bucket is and how to work it.

    Args:
        bucket: its name.
        prefix: what precedes the folders, empty or ending with `/`.
        endpoint: the server, such as `https://storage.googleapis.com`.
        anonymous: send no credentials (an emulator).
        impersonate: the service account to act as, an e-mail address; empty = the ambient one.
        user_project: the project that pays for the requests, where the bucket's owner does not; empty = the owner's.
        refresh: how old the kept listing of queued keys may become; 0 = a short one is made anew for every lease step.
        keep: at most this many queued keys are kept in memory; the rest are seen at the next refresh.
        spread: several dispatchers of one bucket each prefer other keys, so that they do not race for the same head;
            False = strict order, and more lost races.
        exact: make the limit on live leases exact by slot objects: one write and one delete more a key.
        tries: how often a request is sent before the store counts as unavailable (a delete that is throttled: 10).
        first_pause: seconds before the second try; doubled for each further one, plus jitter.
        connections: how many requests are under way at once, at the most.
        timeout: how long one request may take before it is sent again.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = _PUBLIC
    anonymous: bool = False
    impersonate: str = ""
    user_project: str = ""
    refresh: timedelta = DEFAULT_REFRESH
    keep: int = 500_000
    spread: bool = True
    exact: bool = False
    tries: int = 4
    first_pause: float = 0.5
    connections: int = 128
    timeout: timedelta = _TIMEOUT

    @classmethod
    def from_url(
        cls, url: QueueURL, environment: Mapping[str, str] = os.environ, lease: LeaseTimes = DEFAULT_LEASE
    ) -> GCSSettings:
        """The settings in `url`; a request must be answered while its `lease` is good.

        STORAGE_EMULATOR_HOST, which Google's clients honour too, stands in for `endpoint`.

        Raises:
            InvalidSettingError: one of them is not what it can be.
        """
        bucket = url.parts.netloc
        if not _BUCKET.fullmatch(bucket):
            raise InvalidSettingError(
                f"{shown_url(f'gs://{bucket}')} names no bucket; write gs://BUCKET or gs://BUCKET/PREFIX"
            )
        emulator = environment.get(_EMULATOR, "")
        endpoint = url.take("endpoint", _endpoint, _endpoint(emulator) if emulator else _PUBLIC)
        return cls(
            bucket=bucket,
            prefix=_prefix(url),
            endpoint=endpoint,
            anonymous=url.take("anonymous", switch, bool(emulator) and endpoint == _endpoint(emulator)),
            impersonate=url.take("impersonate", _account, ""),
            user_project=url.take("user_project", _project, ""),
            refresh=url.take("refresh", _refresh, DEFAULT_REFRESH),
            keep=url.take("keep", _count, 500_000),
            spread=url.take("spread", switch, True),
            exact=url.take("exact", switch, False),
            timeout=url.timeout("timeout", _TIMEOUT, lease),
        )


@dataclass(frozen=True, slots=True)
class Place:
    """The names of a queue's objects. All but `settings`, `starts` and `slots` are shared with the Go implementation.

    Those three begin with `in-progress`, without the slash: one listing of that prefix brings them along with the keys
    in progress at no further request, and Go, which looks for the slash, does not see them.

    Args:
        prefix: as in `GCSSettings`.
    """

    prefix: str = ""

    @property
    def queued(self) -> str:
        return f"{self.prefix}queued/"

    @property
    def in_progress(self) -> str:
        return f"{self.prefix}in-progress/"

    @property
    def dead(self) -> str:
        return f"{self.prefix}dead-letter/"

    def folder(self, where: KeyStatus) -> str:
        """What the names of the objects begin with whose keys are queued, in progress or dead-lettered."""
        folders = {KeyStatus.QUEUED: self.queued, KeyStatus.IN_PROGRESS: self.in_progress}
        return folders.get(where, self.dead)

    @property
    def running(self) -> str:
        """The prefix of everything that concerns keys in progress."""
        return f"{self.prefix}in-progress"

    @property
    def settings(self) -> str:
        return f"{self.prefix}in-progress-settings"

    @property
    def starts(self) -> str:
        return f"{self.prefix}in-progress-starts"

    @property
    def slots(self) -> str:
        return f"{self.prefix}in-progress-slots/"

    def check_key(self, key: str) -> None:
        """Refuse a key that cannot become an object's name.

        Raises:
            InvalidKeyError: as `validate_key`, or too long together with the prefix.
        """
        validate_key(key)
        most = self.most_key_bytes
        if most < MAX_KEY_BYTES and len(key.encode()) > most:
            raise InvalidKeyError(
                f"under the prefix {self.prefix!r} a key has at most {most} bytes, this one has {len(key.encode())}: "
                "an object's name has at most 1024 in all"
            )

    def fault_of(self, key: str) -> str:
        """Why a key that was found cannot be processed, in one line; empty if it can."""
        if not key:
            return "it is the object of a folder, and names no key"
        most = _MAX_NAME_BYTES - _LONGEST_FOLDER - len(self.prefix.encode())
        if len(key) > most // 4 and len(key.encode()) > most:  # no character has more than 4 bytes
            return f"it has {len(key.encode())} bytes, and one in progress has at most {most}"
        return ""

    @property
    def most_key_bytes(self) -> int:
        """The most bytes that a key can have here."""
        return min(MAX_KEY_BYTES, _MAX_NAME_BYTES - _LONGEST_FOLDER - len(self.prefix.encode()))


def may_exist(name: str) -> bool:
    """Whether there can be an object of this name."""
    try:
        return len(name.encode()) <= _MAX_NAME_BYTES and not _BEYOND_NAMES & set(name)
    except UnicodeEncodeError:
        return False


def check_owner(owner: str) -> str:
    """`owner`, if an object's metadata can hold it.

    Raises:
        InvalidSettingError: it cannot.
    """
    if len(owner.encode()) > _MAX_OWNER_BYTES or not owner.isprintable():
        raise InvalidSettingError(f"owner is printable text of at most {_MAX_OWNER_BYTES} bytes, not {owner!r}")
    return owner


def _prefix(url: QueueURL) -> str:
    """What precedes the folders: the path of the URL, as it was written.

    The queue of a bucket, or of a prefix, lists everything below `queued/`, `in-progress` and `dead-letter/`. Another
    queue there would lose its keys to it.
    """
    path = url.parts.path.strip("/")
    try:
        prefix = unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise InvalidSettingError(f"the prefix {path!r} is not UTF-8, percent-encoded") from None
    if url.parts.fragment or not prefix.isprintable():
        raise InvalidSettingError(f"a prefix is printable text, with `#` written as %23, not {prefix!r}")
    if any(part.startswith(_FOLDERS) for part in prefix.split("/")):
        raise InvalidSettingError(
            f"the prefix {prefix!r} has a part that begins with {', '.join(_FOLDERS)}: there lie the keys of another "
            "queue; choose another name"
        )
    if len(prefix.encode()) > _MOST_PREFIX_BYTES:
        raise InvalidSettingError(
            f"a prefix has at most {_MOST_PREFIX_BYTES} bytes, this one has {len(prefix.encode())}"
        )
    return f"{prefix}/" if prefix else ""


def _endpoint(text: str) -> str:
    """`host:port` or a URL, as STORAGE_EMULATOR_HOST may be either."""
    url = text if "://" in text else f"http://{text}"
    if not re.fullmatch(r"https?://[^/?#\s]+/?", url):
        raise ValueError("it takes a server such as https://storage.googleapis.com or http://127.0.0.1:4443")
    return url.rstrip("/")


def _refresh(text: str) -> timedelta:
    return timedelta(0) if text == "0s" else duration(text)


def _account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        raise ValueError("it takes the e-mail address of a service account")
    return text


def _project(text: str) -> str:
    if not _PROJECT.fullmatch(text):
        raise ValueError("it takes the id or the number of a project")
    return text


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1000:
        raise ValueError("it takes a number of keys, at least 1000")
    return int(text)
