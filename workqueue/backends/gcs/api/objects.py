"""Stage 2: the methods of the JSON API that the queue needs, each pinned to the very version it is about.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects and the page of each method below it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from workqueue.backends.gcs.api.preconditions import IF_ABSENT, Pin, if_match, if_source_match
from workqueue.backends.gcs.api.requests import HTTP, Answer
from workqueue.backends.gcs.metadata import parse_time
from workqueue.errors import StoreUnavailableError, StoreUnusableError

__all__ = ["Copied", "Deleted", "Objects", "Page", "Stored"]

_FIELDS = "name,generation,metageneration,timeCreated,size,metadata"
_WITH_FIELDS = f"fields={quote(_FIELDS)}"
_PAGE_FIELDS = f"nextPageToken,items({_FIELDS})"
_PLAIN = re.compile(r"[A-Za-z0-9_.~/-]+")
_NAME_FIELDS = "nextPageToken,items(name,generation)"


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was read; `created_us` is by the store's wall clock."""

    name: str
    generation: int
    metageneration: int
    created_us: int
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> tuple[int, int]:
        """Generation and metageneration."""
        return self.generation, self.metageneration

    @property
    def pin(self) -> Pin:
        """This very version, metadata included."""
        return Pin(self.name, self.generation, self.metageneration)


@dataclass(frozen=True, slots=True)
class Copied:
    """The outcome of a copy: `made` is the new object, or None when a pin did not hold.

    `resent`: an earlier try of the same copy may have made it.
    """

    made: Stored | None
    resent: bool


class Deleted(Enum):
    """The outcome of a pinned delete."""

    DONE = "deleted"
    RESENT = "gone, and an earlier try of ours whose answer was lost may have been why"
    GONE = "it was not there (any more)"
    CHANGED = "there is another version of it"

    @property
    def is_gone(self) -> bool:
        return self is not Deleted.CHANGED

    @property
    def by_us(self) -> bool:
        return self in (Deleted.DONE, Deleted.RESENT)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing; `next_token` is empty on the last."""

    items: list[dict[str, Any]]
    next_token: str


class Objects:
    """The objects of one bucket.

    Args:
        http: carries the requests.
        bucket: its name.
    """

    def __init__(self, http: HTTP, bucket: str) -> None:
        self._http = http
        self._bucket = bucket
        self._root = f"/storage/v1/b/{quote(bucket, safe='')}"

    async def create(self, name: str, metadata: Mapping[str, str], body: bytes = b"") -> Copied:
        """Store a new object; `made` is None if there is one already."""
        return await self._insert(name, metadata, body, IF_ABSENT)

    async def replace(self, pin: Pin, metadata: Mapping[str, str], body: bytes = b"") -> Copied:
        """Store a new body and metadata in the place of exactly the version `pin`."""
        return await self._insert(pin.name, metadata, body, if_match(pin))

    async def write(self, name: str, metadata: Mapping[str, str]) -> Stored:
        """Store an object whatever is there."""
        copied = await self._insert(name, metadata, b"")
        if copied.made is None:
            raise StoreUnavailableError(f"{name} could not be written")
        return copied.made

    async def patch(self, pin: Pin, change: Mapping[str, str | None]) -> Copied:
        """Change some metadata (None removes) of the version `pin`; `made` is None if that is no longer there."""
        path = f"{self._path(pin.name)}?{if_match(pin)}&{_WITH_FIELDS}"
        return self._stored(await self._http.send("PATCH", path, _json({"metadata": change})))

    async def read(self, name: str) -> Stored | None:
        """The live object, or None."""
        return self._stored(await self._http.send("GET", f"{self._path(name)}?{_WITH_FIELDS}")).made

    async def read_body(self, pin: Pin) -> bytes | None:
        """The body of a generation, or None if it is gone."""
        answer = await self._http.send("GET", f"{self._path(pin.name)}?alt=media&ifGenerationMatch={pin.generation}")
        return answer.body if answer.ok else None

    async def copy(self, source: Pin, target: str, metadata: Mapping[str, str], *, fresh: bool = True) -> Copied:
        """Copy the version `source`, with other metadata; `made` is None if a pin did not hold.

        The pins are preconditions and not `sourceGeneration`, which a bucket with versioning would find among the dead.

        Args:
            source: must still be so.
            target: the name of the copy.
            metadata: all of the copy's.
            fresh: there must be no `target` yet; else it is replaced.
        """
        path = f"{self._path(source.name)}/copyTo/b/{quote(self._bucket, safe='')}/o/{_segment(target)}"
        pins = f"{if_source_match(source)}&{IF_ABSENT}" if fresh else if_source_match(source)
        return self._stored(
            await self._http.send("POST", f"{path}?{pins}&{_WITH_FIELDS}", _json({"metadata": metadata}))
        )

    async def delete(self, pin: Pin) -> Deleted:
        """Delete the version `pin` and no other."""
        answer = await self._http.send("DELETE", f"{self._path(pin.name)}?{if_match(pin)}")
        if answer.ok:
            return Deleted.DONE
        if answer.status == HTTPStatus.PRECONDITION_FAILED:
            # Pinned to a generation alone: it is gone, and what is there now may have come after our first try.
            return Deleted.RESENT if answer.resent and not pin.metageneration else Deleted.CHANGED
        return Deleted.RESENT if answer.resent else Deleted.GONE

    async def page(self, prefix: str, token: str = "", *, names_only: bool = False) -> Page:
        """One page of what is below `prefix`, up to 1000 objects in the order of their names.

        Raises:
            StoreUnusableError: there is no such bucket.
        """
        query = {"prefix": prefix, "maxResults": 1000, "fields": _NAME_FIELDS if names_only else _PAGE_FIELDS}
        query |= {"pageToken": token} if token else {}
        found = self._in_bucket(await self._http.send("GET", f"{self._root}/o?{urlencode(query)}"))
        return Page(found.get("items", []), found.get("nextPageToken", ""))

    async def bucket(self) -> dict[str, Any]:
        """The bucket's own resource.

        Raises:
            StoreUnusableError: there is no such bucket, or it may not be read.
        """
        return self._in_bucket(await self._http.send("GET", self._root))

    def stored(self, item: Mapping[str, Any]) -> Stored:
        """The object that a listing or an answer describes."""
        return Stored(
            item["name"],
            int(item["generation"]),
            int(item.get("metageneration", 1)),
            parse_time(item.get("timeCreated", "")) or 0,
            int(item.get("size", 0)),
            item.get("metadata") or {},
        )

    async def _insert(self, name: str, metadata: Mapping[str, str], body: bytes, pins: str = "") -> Copied:
        mark = secrets.token_hex(16).encode()
        parts = (mark, _json({"name": name, "metadata": metadata}), mark, body, mark)
        content = (
            b"--%b\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n%b\r\n"
            b"--%b\r\nContent-Type: application/octet-stream\r\n\r\n%b\r\n--%b--" % parts
        )
        query = f"uploadType=multipart&{_WITH_FIELDS}" + (f"&{pins}" if pins else "")
        answer = await self._http.send(
            "POST", f"/upload{self._root}/o?{query}", content, f"multipart/related; boundary={mark.decode()}"
        )
        if answer.status == HTTPStatus.NOT_FOUND and pins in ("", IF_ABSENT):
            self._in_bucket(answer)
        return self._stored(answer)

    def _path(self, name: str) -> str:
        return f"{self._root}/o/{_segment(name)}"

    def _stored(self, answer: Answer) -> Copied:
        return Copied(self.stored(_document(answer.body)) if answer.ok else None, answer.resent)

    def _in_bucket(self, answer: Answer) -> dict[str, Any]:
        if not answer.ok:
            raise StoreUnusableError(
                f"there is no bucket {self._bucket!r}, or these credentials may not know of it: create it, or correct "
                "the gs:// URL"
            )
        return _document(answer.body)


def _segment(name: str) -> str:
    """A name as one segment of a path; the common ones take a tenth of the time of `quote`."""
    return name.replace("/", "%2F") if _PLAIN.fullmatch(name) else quote(name, safe="")


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise StoreUnavailableError("Cloud Storage answered with something that is no JSON") from error
    if not isinstance(found, dict):
        raise StoreUnavailableError("Cloud Storage answered with something that is no JSON object")
    return found
