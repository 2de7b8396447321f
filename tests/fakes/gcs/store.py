"""The emulator's data and its rules: buckets, objects, preconditions, generations, limits.

Every method is one atomic step, as one request is in the real service. Sources:
https://cloud.google.com/storage/docs/consistency, https://cloud.google.com/storage/docs/request-preconditions,
https://cloud.google.com/storage/docs/metadata#generation-number
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sortedcontainers import SortedList  # type: ignore[import-untyped]

from tests.fakes.gcs.clock import MICROSECONDS, ServerClock, rfc3339
from tests.fakes.gcs.errors import (
    BUCKET,
    OBJECT,
    bucket_exists,
    condition_not_met,
    forbidden,
    no_such_bucket,
    no_such_object,
    not_modified,
    retained,
    write_rate_exceeded,
)
from tests.fakes.gcs.listing import ListQuery, Page, list_page
from tests.fakes.gcs.objects import NO_ATTRIBUTES, Attributes, StoredObject, attributes_of, check_name, md5_hash, merge


@dataclass(frozen=True, slots=True)
class Preconditions:
    """The four numbers a request may pin; None: not asked for."""

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None

    def check(self, found: StoredObject | None) -> None:
        """Hold the request against what is live now; `found` is None when nothing is.

        Raises:
            ApiError: 412 when a Match fails or a NotMatch finds no live object; 304 when a NotMatch names what is live.
        """
        if found is None:
            if self not in (NO_PRECONDITIONS, MUST_NOT_EXIST):
                raise condition_not_met()
            return
        if self.generation not in (None, found.generation) or self.metageneration not in (None, found.metageneration):
            raise condition_not_met()
        if self.not_generation == found.generation or self.not_metageneration == found.metageneration:
            raise not_modified()


NO_PRECONDITIONS = Preconditions()
MUST_NOT_EXIST = Preconditions(generation=0)


@dataclass(frozen=True, slots=True)
class Target:
    """One object as a request names it: where it is, which generation of it (0: the live one), what must hold."""

    bucket: str
    name: str
    generation: int = 0
    pins: Preconditions = NO_PRECONDITIONS


@dataclass(slots=True)
class Bucket:
    """A bucket: its settable fields, its live objects, and their names in order."""

    name: str
    project_number: int
    created_us: int
    fields: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, StoredObject] = field(default_factory=dict)
    names: Any = field(default_factory=SortedList)

    def resource(self, root: str) -> dict[str, Any]:
        """The `storage#bucket` document."""
        created = rfc3339(self.created_us)
        return {
            "kind": "storage#bucket",
            "id": self.name,
            "selfLink": f"{root}/storage/v1/b/{self.name}",
            "name": self.name,
            "projectNumber": str(self.project_number),
            "metageneration": "1",
            "location": "US",
            "locationType": "multi-region",
            "storageClass": "STANDARD",
            "etag": "CAE=",
            "timeCreated": created,
            "updated": created,
            **self.fields,
        }

    def retention_us(self) -> int:
        """How long an object stays protected, in microseconds; 0 without a retention policy."""
        return int(self.fields.get("retentionPolicy", {}).get("retentionPeriod", 0)) * MICROSECONDS


@dataclass(slots=True)
class WriteLimit:
    """A token bucket for each object: `per_second` mutations, with `burst` of them at once."""

    per_second: float = 1.0
    burst: int = 1
    spent: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def left(self, key: tuple[str, str], now: float) -> float:
        """How many mutations the object may see now."""
        tokens, since = self.spent.get(key, (float(self.burst), now))
        return min(float(self.burst), tokens + max(0.0, now - since) * self.per_second)

    def spend(self, key: tuple[str, str], now: float) -> None:
        """Count one mutation."""
        self.spent[key] = (self.left(key, now) - 1.0, now)


class Store:
    """All buckets. Safe to call from any thread, so that a test can look at it, and change it, beside the server.

    Args:
        clock: the server's time.

    Attributes:
        denied: IAM permissions that the caller lacks, such as `storage.objects.list`; tests add and remove them.
        principal: who the caller is in the text of a 403.
        write_limit: None, or the mutation rate that every object is held to.
        merges_on_copy: merge the metadata of a copy into the source's, as Google's test bench does and the service does
            not.
    """

    def __init__(self, clock: ServerClock) -> None:
        self.clock = clock
        self.denied: set[str] = set()
        self.merges_on_copy = False
        self.principal = "tester@example.iam.gserviceaccount.com"
        self.write_limit: WriteLimit | None = None
        self._buckets: dict[str, Bucket] = {}
        self._last_generation = 0
        self._lock = threading.RLock()

    # Buckets

    def create_bucket(self, name: str, *, project_number: int = 123456789012, **fields: Any) -> Bucket:
        """Create a bucket with any fields of the resource, such as `retentionPolicy={"retentionPeriod": "60"}`.

        Raises:
            ApiError: 409 when it exists, 403 without `storage.buckets.create`.
        """
        with self._lock:
            self._allow("storage.buckets.create", BUCKET)
            if name in self._buckets:
                raise bucket_exists()
            fields.setdefault("softDeletePolicy", {"retentionDurationSeconds": "0"})
            self._buckets[name] = Bucket(name, project_number, self.clock.now_us(), fields)
            return self._buckets[name]

    def get_bucket(self, name: str) -> Bucket:
        """buckets.get. Raises: ApiError 404, or 403 without `storage.buckets.get`."""
        with self._lock:
            self._allow("storage.buckets.get", BUCKET)
            return self.bucket(name)

    def bucket(self, name: str) -> Bucket:
        """The bucket, permissions aside. Raises: ApiError 404."""
        found = self._buckets.get(name)
        if found is None:
            raise no_such_bucket()
        return found

    # The API's methods on objects

    def insert(self, target: Target, attributes: Attributes, body: bytes) -> StoredObject:
        """objects.insert: create the object, or replace it when the preconditions allow.

        Raises:
            ApiError: 400 for the name, 403, 404 for the bucket, 412 or 304, 429.
        """
        check_name(target.name)
        with self._lock:
            bucket = self.bucket(target.bucket)
            self._check_write(bucket, target)
            return self._write(bucket, target.name, attributes, body)

    def get(self, target: Target) -> StoredObject:
        """objects.get. Raises: ApiError 403, 404, 412 or 304."""
        with self._lock:
            bucket = self.bucket(target.bucket)
            self._allow("storage.objects.get", OBJECT)
            return self._find(bucket, target)

    def patch(self, target: Target, change: Mapping[str, Any]) -> StoredObject:
        """objects.patch: merge `change` into the metadata; metageneration + 1. Raises: ApiError as `get`, 400, 429."""
        with self._lock:
            found = self._find_to_update(target)
            return self._restate(found, merge(found.attributes, change))

    def update(self, target: Target, document: Mapping[str, Any]) -> StoredObject:
        """objects.update: replace the metadata by `document`; metageneration + 1. Raises: ApiError as `patch`."""
        with self._lock:
            return self._restate(self._find_to_update(target), attributes_of(document))

    def delete(self, target: Target) -> None:
        """objects.delete. Raises: ApiError 403 (permission, retention), 404, 412 or 304, 429."""
        with self._lock:
            bucket = self.bucket(target.bucket)
            self._allow("storage.objects.delete", OBJECT)
            found = self._find(bucket, target)
            self._check_mutable(bucket, found)
            self._check_rate(target)
            del bucket.objects[target.name]
            bucket.names.remove(target.name)
            self._count_write(target)

    def copy(self, source: Target, target: Target, attributes: Attributes) -> StoredObject:
        """objects.copy and a rewrite that is done at once.

        Without `attributes` the source's are taken over; with any, the request alone says what they are
        (https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite, Request body).

        Raises:
            ApiError: 400, 403, 404 for a source or its generation, 412 or 304 from either side, 429.
        """
        check_name(target.name)
        with self._lock:
            source_bucket, bucket = self.bucket(source.bucket), self.bucket(target.bucket)
            self._allow("storage.objects.get", OBJECT)
            found = self._find(source_bucket, source)
            self._check_write(bucket, target)
            if attributes and self.merges_on_copy:
                attributes = Attributes(attributes.fields, {**found.metadata, **attributes.metadata})
            return self._write(bucket, target.name, attributes or found.attributes, found.body)

    def list_objects(self, bucket: str, query: ListQuery) -> tuple[list[StoredObject], Page]:
        """objects.list: one page, of names and of the objects behind them. Raises: ApiError 403, 404."""
        with self._lock:
            found = self.bucket(bucket)
            self._allow("storage.objects.list", BUCKET)
            page = list_page(found.names, query)
            return [found.objects[name] for name in page.names], page

    # For tests: around the API

    def put(self, bucket: str, name: str, metadata: Mapping[str, str] | None = None, body: bytes = b"") -> StoredObject:
        """Store an object as another client would have, whatever permissions, limits and preconditions say."""
        with self._lock:
            return self._write(self.bucket(bucket), name, Attributes({}, dict(metadata or {})), body)

    def fill(self, bucket: str, names: Iterable[str], metadata: Mapping[str, str] | None = None) -> int:
        """Store many empty objects with one set of metadata, fast; returns how many."""
        attributes = Attributes({}, dict(metadata)) if metadata else NO_ATTRIBUTES
        with self._lock:
            found = self.bucket(bucket)
            fresh = {name: self._make(found, name, attributes, b"") for name in names}
            found.names.update(fresh.keys() - found.objects.keys())
            found.objects.update(fresh)
            return len(fresh)

    def requesters_pay(self, bucket: str) -> bool:
        """Whether requests to a bucket are billed to whoever sends them."""
        with self._lock:
            found = self._buckets.get(bucket)
            return found is not None and bool(found.fields.get("billing", {}).get("requesterPays"))

    def find(self, bucket: str, name: str) -> StoredObject | None:
        """The live object, or None; counts as no request."""
        with self._lock:
            return self.bucket(bucket).objects.get(name)

    def snapshot(self, bucket: str, prefix: str = "") -> dict[str, StoredObject]:
        """Every live object whose name starts with `prefix`, in order, as of now; counts as no request."""
        with self._lock:
            found = self.bucket(bucket)
            page = list_page(found.names, ListQuery(prefix=prefix, limit=len(found.names) + 1))
            return {name: found.objects[name] for name in page.names}

    def remove(self, bucket: str, prefix: str = "") -> int:
        """Remove every object whose name starts with `prefix`, whatever protects it; returns how many."""
        with self._lock:
            found = self.bucket(bucket)
            gone = self.snapshot(bucket, prefix)
            for name in gone:
                del found.objects[name]
            found.names = SortedList(found.objects)
            return len(gone)

    # Rules shared by the methods; the lock is held

    def _allow(self, permission: str, kind: str) -> None:
        if permission in self.denied:
            raise forbidden(self.principal, permission, kind)

    def _find(self, bucket: Bucket, target: Target) -> StoredObject:
        found = bucket.objects.get(target.name)
        if found is None or target.generation not in (0, found.generation):
            raise no_such_object(target.bucket, target.name)
        target.pins.check(found)
        return found

    def _find_to_update(self, target: Target) -> StoredObject:
        bucket = self.bucket(target.bucket)
        self._allow("storage.objects.update", OBJECT)
        found = self._find(bucket, target)
        self._check_rate(target)
        return found

    def _check_write(self, bucket: Bucket, target: Target) -> None:
        self._allow("storage.objects.create", OBJECT)
        existing = bucket.objects.get(target.name)
        target.pins.check(existing)
        if existing is not None:
            self._allow("storage.objects.delete", OBJECT)  # replacing is deleting what was there
            self._check_mutable(bucket, existing)
        self._check_rate(target)

    def _check_mutable(self, bucket: Bucket, found: StoredObject) -> None:
        until_us = found.created_us + bucket.retention_us()
        if until_us > self.clock.now_us():
            raise retained(bucket.name, found.name, rfc3339(until_us))

    def _check_rate(self, target: Target) -> None:
        limit = self.write_limit
        if limit is not None and limit.left((target.bucket, target.name), self.clock.now()) < 1.0:
            raise write_rate_exceeded(target.bucket, target.name)

    def _count_write(self, target: Target | StoredObject) -> None:
        if self.write_limit is not None:
            self.write_limit.spend((target.bucket, target.name), self.clock.now())

    def _write(self, bucket: Bucket, name: str, attributes: Attributes, body: bytes) -> StoredObject:
        written = self._make(bucket, name, attributes, body)
        if name not in bucket.objects:
            bucket.names.add(name)
        bucket.objects[name] = written
        self._count_write(written)
        return written

    def _make(self, bucket: Bucket, name: str, attributes: Attributes, body: bytes) -> StoredObject:
        now_us = self.clock.now_us()
        # Generations grow even when the clock is turned back; clients rely on their being unique.
        self._last_generation = max(self._last_generation + 1, now_us)
        return StoredObject(
            bucket.name, name, self._last_generation, 1, now_us, now_us, attributes, body, md5_hash(body)
        )

    def _restate(self, found: StoredObject, attributes: Attributes) -> StoredObject:
        changed = replace(
            found,
            metageneration=found.metageneration + 1,
            updated_us=self.clock.now_us(),
            attributes=attributes,
        )
        self.bucket(found.bucket).objects[found.name] = changed
        self._count_write(changed)
        return changed
