"""What the emulator stores: one live version of an object, its limits, and how the API shows it.

Sources: https://cloud.google.com/storage/docs/json_api/v1/objects (the resource),
https://cloud.google.com/storage/docs/objects (names), https://cloud.google.com/storage/quotas (metadata).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.fakes.gcs.clock import rfc3339
from tests.fakes.gcs.errors import invalid

MAX_NAME_BYTES = 1024
MAX_METADATA_NAME_BYTES = 1024
MAX_METADATA_VALUE_BYTES = 4096
MAX_METADATA_BYTES = 8192

# What a writer may set, besides custom metadata: https://cloud.google.com/storage/docs/metadata#editable
EDITABLE = ("cacheControl", "contentDisposition", "contentEncoding", "contentLanguage", "contentType", "customTime")


@dataclass(frozen=True, slots=True)
class Attributes:
    """The editable metadata of an object: the fixed-key fields that are set, and the custom entries."""

    fields: Mapping[str, str]
    metadata: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.fields or self.metadata)


NO_ATTRIBUTES = Attributes({}, {})


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One live version. Replaced as a whole by every change, so a reader never sees half of one."""

    bucket: str
    name: str
    generation: int
    metageneration: int
    created_us: int
    updated_us: int
    attributes: Attributes
    body: bytes
    md5: str

    @property
    def metadata(self) -> Mapping[str, str]:
        """The custom metadata."""
        return self.attributes.metadata

    def path(self) -> str:
        """The object's path below `/storage/v1/`."""
        return f"b/{self.bucket}/o/{quote(self.name, safe='')}"

    def resource(self, root: str, wanted: Container[str] | None = None) -> dict[str, Any]:
        """The `storage#object` document, or of it the fields that are `wanted`.

        int64 numbers are strings, as in every answer of the API; what is not set is left out.
        """
        document = {name: show(self, root) for name, show in RESOURCE.items() if wanted is None or name in wanted}
        document.update(self.attributes.fields)
        if self.attributes.metadata:
            document["metadata"] = self.attributes.metadata
        return document


RESOURCE: dict[str, Callable[[StoredObject, str], Any]] = {
    "kind": lambda stored, root: "storage#object",
    "id": lambda stored, root: f"{stored.bucket}/{stored.name}/{stored.generation}",
    "selfLink": lambda stored, root: f"{root}/storage/v1/{stored.path()}",
    "mediaLink": lambda stored, root: (
        f"{root}/download/storage/v1/{stored.path()}?generation={stored.generation}&alt=media"
    ),
    "name": lambda stored, root: stored.name,
    "bucket": lambda stored, root: stored.bucket,
    "generation": lambda stored, root: str(stored.generation),
    "metageneration": lambda stored, root: str(stored.metageneration),
    "storageClass": lambda stored, root: "STANDARD",
    "size": lambda stored, root: str(len(stored.body)),
    "md5Hash": lambda stored, root: stored.md5,
    "etag": lambda stored, root: etag(stored.generation, stored.metageneration),
    "timeCreated": lambda stored, root: rfc3339(stored.created_us),
    "updated": lambda stored, root: rfc3339(stored.updated_us),
}


def md5_hash(body: bytes) -> str:
    """The MD5 of a body in base64, as `md5Hash` carries it."""
    if not body:
        return "1B2M2Y8AsgTpgAmY7PhCfg=="
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def etag(generation: int, metageneration: int) -> str:
    """The service's etag: generation and metageneration as protobuf varints, in base64."""
    return base64.b64encode(b"\x08" + varint(generation) + b"\x10" + varint(metageneration)).decode()


def varint(number: int) -> bytes:
    """A protobuf varint."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def check_name(name: str) -> None:
    """Refuse an object name that breaks the naming rules.

    Raises:
        ApiError: 400 for a name that is empty, longer than 1024 bytes of UTF-8, holds CR or LF, is `.` or `..`, or
            starts with `.well-known/acme-challenge/`.
    """
    length = len(name.encode())
    if not 0 < length <= MAX_NAME_BYTES:
        raise invalid(f"An object name takes 1 to {MAX_NAME_BYTES} bytes of UTF-8, not {length}.")
    if "\r" in name or "\n" in name:
        raise invalid("An object name cannot hold carriage returns or line feeds.")
    if name in (".", "..") or name.startswith(".well-known/acme-challenge/"):
        raise invalid(f"The object name {name} is reserved.")


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuse custom metadata beyond the limits.

    1 KiB a name, 4 KiB a value, 8 KiB in all, keys and values counted in UTF-8 bytes
    (https://cloud.google.com/storage/docs/reference/rpc/google.storage.v1, ServiceConstants).

    Raises:
        ApiError: 400.
    """
    total = 0
    for key, value in metadata.items():
        key_bytes, value_bytes = len(key.encode()), len(value.encode())
        if not 0 < key_bytes <= MAX_METADATA_NAME_BYTES:
            raise invalid(f"A custom metadata key takes 1 to {MAX_METADATA_NAME_BYTES} bytes, not {key_bytes}.")
        if value_bytes > MAX_METADATA_VALUE_BYTES:
            raise invalid(
                f"The custom metadata value of {key} takes {value_bytes} bytes of {MAX_METADATA_VALUE_BYTES}."
            )
        total += key_bytes + value_bytes
    if total > MAX_METADATA_BYTES:
        raise invalid(f"The custom metadata takes {total} bytes of {MAX_METADATA_BYTES}.")


def attributes_of(document: Mapping[str, Any]) -> Attributes:
    """The editable part of an object resource that a client sent; output-only fields are ignored, null is unset.

    Raises:
        ApiError: 400 for a value of the wrong type or custom metadata beyond its limits.
    """
    given = {name: document[name] for name in EDITABLE if document.get(name) is not None}
    metadata = document.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise invalid("metadata must be an object of strings.")
    custom = {key: value for key, value in metadata.items() if value is not None}
    check_strings(given)
    check_strings(custom)
    check_metadata(custom)
    return Attributes(given, custom)


def merge(existing: Attributes, patch: Mapping[str, Any]) -> Attributes:
    """Apply a PATCH body: a given value replaces, null deletes, what is absent stays; custom entries one by one.

    Raises:
        ApiError: 400, as `attributes_of`.
    """
    fields = {**existing.fields, **{name: patch[name] for name in EDITABLE if name in patch}}
    custom: object = existing.metadata
    if "metadata" in patch:
        change = patch["metadata"]
        if change is not None and not isinstance(change, dict):
            raise invalid("metadata must be an object of strings.")
        custom = {} if change is None else {**existing.metadata, **change}
    return attributes_of({**fields, "metadata": custom})


def check_strings(values: Mapping[str, object]) -> None:
    """Refuse anything but strings: the schema says string, and Python clients send numbers by accident.

    Raises:
        ApiError: 400.
    """
    for name, value in values.items():
        if not isinstance(value, str):
            raise invalid(f"Invalid value for {name}: a string is needed, not {value!r}.")
