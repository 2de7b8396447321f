"""What an object says of its key: the metadata shared with the Go implementation, and ours beside it.

Go's names are `priority` (`%08d`), `attempts`, `not-before` (RFC 3339, UTC, whole seconds; year 1 = none),
`not-before-floor`, `lease-expiration`, `last-attempted` (Unix seconds), `failed-time`, `owner`. Ours, which Go carries
along where it copies: `lease-token`, `lease-stamp`, `error`, `queued-time`, `first-queued-time`, `payload`, `meta-*`.
Names that neither knows are carried along by us. Reading never fails: what is malformed counts as absent (a malformed
lease: orphaned).

A copy replaces all metadata. Some stores, Google's test bench for one, merge it into the source's instead: there, what
has an effect and is no longer so must be said in words and not left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from workqueue.clock import LATEST_US, from_us, to_us
from workqueue.errors import InvalidOptionsError
from workqueue.options import MAX_PRIORITY, NO_META
from workqueue.rules import DeadLetter, Entry

__all__ = [
    "HIGHEST_PRIORITY",
    "LOWEST_PRIORITY",
    "NO_TIME",
    "PRESENT",
    "Stamps",
    "attempts_of",
    "began_us",
    "changes",
    "check_priority",
    "dead_letter_metadata",
    "entry_of",
    "in_progress_metadata",
    "incarnation_of",
    "lease_expiry_us",
    "lease_metadata",
    "lease_stamp",
    "letter_of",
    "parse_time",
    "priority_text",
    "queued_metadata",
    "renewed_metadata",
    "seconds_text",
    "time_text",
    "token_of",
]

LOWEST_PRIORITY, HIGHEST_PRIORITY = -9_999_999, 99_999_999
"""What `%08d` holds in eight characters; Go once compared priorities as text."""

PRESENT = b"(the payload in the object's body)"
"""Stands for a payload that was not read; compared by identity."""

NO_TIME = "0001-01-01T00:00:00Z"

_SECOND_US = 1_000_000
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_SHARED = frozenset(
    ("priority", "attempts", "not-before", "not-before-floor", "lease-expiration", "last-attempted", "failed-time")
)
_OURS = frozenset(
    ("lease-token", "lease-stamp", "attempt-began", "error", "queued-time", "first-queued-time", "payload")
)
_KNOWN = _SHARED | _OURS | {"owner"}
_META = "meta-"
_MOST_ATTEMPTS = 2**31 - 1  # what the wire can say; times a backoff it is still a duration
_MAX_VALUE_BYTES = 4096
_MAX_METADATA_BYTES = 8192
_ESCAPED = re.compile("[%\x00-\x1f\x7f-\x9f]")  # what a header, as the XML API sends metadata, cannot carry
_CAPITAL = re.compile("[A-Z%]")


# reading


def entry_of(metadata: Mapping[str, str], key: str, created_us: int, size: int) -> Entry:
    """The entry that an object describes; a payload in its body is `PRESENT`."""
    get = metadata.get
    not_before_us = parse_time(get("not-before", "")) or 0
    queued_us, first_us = _times(metadata, created_us)
    return Entry(
        key,
        _priority(get("priority", "")),
        attempts_of(metadata),
        queued_us,
        first_us,
        not_before_us,
        get("not-before-floor") == "true" and not_before_us > 0,
        PRESENT if size else (b"" if get("payload") == "empty" else None),
        _meta(metadata),
    )


def letter_of(metadata: Mapping[str, str], key: str, created_us: int, size: int) -> DeadLetter:
    """The dead letter that an object describes."""
    failed_us = parse_time(metadata.get("failed-time", "")) or created_us
    return DeadLetter(entry_of(metadata, key, created_us, size), unquote(metadata.get("error", "")), failed_us)


def attempts_of(metadata: Mapping[str, str]) -> int:
    """The attempts that an object has, without reading the rest of it."""
    return min(max(_number(metadata.get("attempts", "")), 0), _MOST_ATTEMPTS)


def lease_expiry_us(metadata: Mapping[str, str]) -> int:
    """When the lease lapses by the store's clock; 0, which is past, if that is absent or malformed, as in Go."""
    return parse_time(metadata.get("lease-expiration", "")) or 0


def token_of(metadata: Mapping[str, str]) -> str:
    """The token of the lease in an object, if a process of ours stamped that lease; else empty.

    Go, which takes a key over, carries our token along and writes a lease of its own beside it.
    """
    ours = metadata.get("lease-stamp", "") == metadata.get("lease-expiration")
    return metadata.get("lease-token", "") if ours else ""


def incarnation_of(token: str) -> str:
    """Which of our processes has the lease of this token; empty if none of ours does."""
    return token.partition("-")[0]


@lru_cache(maxsize=2048)  # a listing shows thousands of objects of the same few seconds
def parse_time(text: str) -> int | None:
    """Microseconds since the epoch of an RFC 3339 time; None if it is malformed, 0 for year 1, which means none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None or "T" not in text:
        return None
    return 0 if moment.year == 1 else to_us(moment)


def _times(metadata: Mapping[str, str], created_us: int) -> tuple[int, int]:
    """Since when the key waits at its present place, and when its story began.

    Our `queued-time` counts unless Go requeued the key since: then it is older than Go's `last-attempted`.
    """
    written_us = parse_time(metadata.get("queued-time", "")) or 0
    last_attempted_us = _number(metadata.get("last-attempted", "")) * _SECOND_US
    queued_us = written_us if written_us and written_us >= last_attempted_us else created_us
    first_us = parse_time(metadata.get("first-queued-time", "")) or written_us or created_us
    return queued_us, first_us


def began_us(metadata: Mapping[str, str], created_us: int) -> int:
    """When the attempt in progress began; of one that Go started, when its object was made."""
    return parse_time(metadata.get("attempt-began", "")) or created_us


def _priority(text: str) -> int:
    return min(max(_number(text), -MAX_PRIORITY), MAX_PRIORITY)


def _number(text: str) -> int:
    return int(text) if _NUMBER.fullmatch(text) else 0


def _meta(metadata: Mapping[str, str]) -> Mapping[str, str]:
    found = {unquote(name[len(_META) :]): unquote(text) for name, text in metadata.items() if name.startswith(_META)}
    return found or NO_META


# writing


class Stamps(NamedTuple):
    """What an object in progress says of its lease: when it lapses, and when the attempt began."""

    expires: str
    began: str


def check_priority(priority: int) -> None:
    """Refuse a priority that the shared form cannot hold.

    Raises:
        InvalidOptionsError: nothing was stored.
    """
    if not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        raise InvalidOptionsError(
            f"priority {priority} is out of range: a bucket, shared with Go, holds {LOWEST_PRIORITY} to "
            f"{HIGHEST_PRIORITY}"
        )


def queued_metadata(entry: Entry, base: Mapping[str, str], attempted_us: int = 0) -> dict[str, str]:
    """The metadata of a queued object.

    Args:
        entry: what it is to say.
        base: the metadata it had before, for what it carries along.
        attempted_us: when an attempt on it was ended by a requeue; 0 = it says what it said.
    """
    metadata = _of_entry(entry, base)
    metadata["not-before"] = seconds_text(entry.not_before_us) if entry.not_before_us else NO_TIME
    if entry.floor or "not-before-floor" in base:
        metadata["not-before-floor"] = "true" if entry.floor else "false"
    if attempted_us:
        metadata["last-attempted"] = str(attempted_us // _SECOND_US)
    return metadata


def in_progress_metadata(
    entry: Entry, base: Mapping[str, str], token: str, owner: str, lease: Stamps
) -> dict[str, str]:
    """The metadata of an object in progress."""
    metadata = _of_entry(entry, base) | {"not-before": NO_TIME, "attempt-began": lease.began}
    metadata |= lease_metadata(token, lease.expires)
    if owner or "owner" in base:
        metadata["owner"] = owner
    return metadata


def lease_metadata(token: str, stamp: str) -> dict[str, str]:
    """The part of the metadata that is a lease of ours, which lapses at `stamp`."""
    return {"lease-token": token} | renewed_metadata(stamp)


def renewed_metadata(stamp: str) -> dict[str, str]:
    """What a renewal changes in a lease of ours, which lapses at `stamp` then."""
    return {"lease-expiration": stamp, "lease-stamp": stamp}


def dead_letter_metadata(letter: DeadLetter, base: Mapping[str, str]) -> dict[str, str]:
    """The metadata of a dead letter; the error's text is cut where an object's metadata is full."""
    metadata = _of_entry(letter.entry, base) | {"not-before": NO_TIME, "failed-time": time_text(letter.failed_us)}
    room = _MAX_METADATA_BYTES - len("error") - sum(len(n.encode()) + len(t.encode()) for n, t in metadata.items())
    metadata["error"] = _cut(_ESCAPED.sub(_escape, letter.error), min(room, _MAX_VALUE_BYTES))
    return metadata


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """What a PATCH must say to make one of the other; None removes."""
    changed: dict[str, str | None] = {name: text for name, text in after.items() if before.get(name) != text}
    changed.update(dict.fromkeys(before.keys() - after.keys()))
    return changed


def _of_entry(entry: Entry, base: Mapping[str, str]) -> dict[str, str]:
    """What every place has in common, and what nobody here knows the meaning of."""
    metadata = {name: text for name, text in base.items() if name not in _KNOWN and not name.startswith(_META)}
    metadata["priority"] = priority_text(entry.priority)
    metadata["queued-time"] = time_text(entry.queued_us)
    if entry.first_queued_us != entry.queued_us or "first-queued-time" in base:
        metadata["first-queued-time"] = time_text(entry.first_queued_us)
    metadata["attempts"] = str(entry.attempts)
    if entry.payload == b"":
        metadata["payload"] = "empty"
    last_attempted = _number(base.get("last-attempted", ""))
    if 0 < last_attempted * _SECOND_US <= entry.queued_us:  # one that is later would make Go's word of our queued-time
        metadata["last-attempted"] = str(last_attempted)
    for name, text in entry.meta.items():
        metadata[_META + _CAPITAL.sub(_escape, name)] = _ESCAPED.sub(_escape, text)
    return metadata


def priority_text(priority: int) -> str:
    """`%08d`, clipped to what it holds: found in a store, a wider one must still be written back."""
    return f"{min(max(priority, LOWEST_PRIORITY), HIGHEST_PRIORITY):08d}"


def lease_stamp(expires_us: int) -> str:
    """The text of `lease-expiration`."""
    return seconds_text(expires_us)


def seconds_text(us: int) -> str:
    """RFC 3339 in whole seconds, as Go compares them as text; rounded up, so that nothing is early."""
    return from_us(min(-(-us // _SECOND_US) * _SECOND_US, LATEST_US)).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_text(us: int) -> str:
    """RFC 3339 with microseconds."""
    return datetime.fromtimestamp(us // _SECOND_US, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{us % _SECOND_US:06d}Z"


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02x}" for byte in found[0].encode())


def _cut(text: str, most_bytes: int) -> str:
    """`text` in at most `most_bytes`, no character and no escape cut in two."""
    if len(text.encode()) <= most_bytes:
        return text
    return re.sub("%[0-9a-f]?$", "", text.encode()[:most_bytes].decode("utf-8", "ignore"))
