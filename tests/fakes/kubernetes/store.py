"""The data of the fake Kubernetes API server: objects, one revision for every write, a history that can be compacted.

Rules followed: https://kubernetes.io/docs/reference/using-api/api-concepts/ (resource versions, 410, lists in chunks)
and the API conventions (optimistic concurrency, finalizers, the status subresource, generation).
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind that the server knows.

    Args:
        conditional: an update without a resourceVersion is refused, as for Leases.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    status: bool = False
    conditional: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


RESOURCES = (
    Resource("", "v1", "Namespace", "namespaces", namespaced=False, status=True),
    Resource("", "v1", "Pod", "pods", status=True),
    Resource("", "v1", "ConfigMap", "configmaps"),
    Resource("events.k8s.io", "v1", "Event", "events"),
    Resource("apps", "v1", "Deployment", "deployments", status=True),
    Resource("apps", "v1", "ReplicaSet", "replicasets", status=True),
    Resource("coordination.k8s.io", "v1", "Lease", "leases", conditional=True),
    Resource("example.com", "v1", "Site", "sites", status=True),
)


class Refusal(Exception):
    """An answer other than 2xx, as the Status object that the API server would send."""

    def __init__(self, code: int, reason: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after: int | None = more.pop("retry_after", None)
        self.status = status(code, reason, message, **more)


def status(code: int, reason: str, message: str, **more: Any) -> Body:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": more.pop("metadata", {}),
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
        **more,
    }


def gone(message: str, **more: Any) -> Refusal:
    return Refusal(410, "Expired", message, **more)


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as of one revision, with its bytes."""

    body: Body
    raw: bytes

    @classmethod
    def of(cls, body: Body) -> Stored:
        return cls(body, json.dumps(body, separators=(",", ":")).encode())

    @property
    def metadata(self) -> Body:
        return self.body["metadata"]  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Change:
    """One write: `before` is None for a creation, `after` None for a removal (then `last` is the final state)."""

    revision: int
    resource: Resource
    before: Stored | None
    after: Stored | None
    last: Stored


Key = tuple[str, str]  # namespace ("" for cluster-scoped), name


@dataclass
class Store:
    """Every object of the server."""

    revision: int = 100
    compacted: int = 0
    changes: list[Change] = field(default_factory=list)
    objects: dict[str, dict[Key, Stored]] = field(default_factory=dict)
    subscribers: set[Callable[[], None]] = field(default_factory=set)

    def of(self, resource: Resource) -> dict[Key, Stored]:
        return self.objects.setdefault(resource.full_name, {})

    def get(self, resource: Resource, key: Key) -> Stored:
        found = self.of(resource).get(key)
        if found is None:
            raise Refusal(404, "NotFound", f'{resource.full_name} "{key[1]}" not found')
        return found

    def create(self, resource: Resource, namespace: str, body: Body) -> Stored:
        made = copy.deepcopy(body)
        metadata = made.setdefault("metadata", {})
        if metadata.get("resourceVersion"):
            raise Refusal(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        name = metadata.get("name")
        if not name:
            raise Refusal(422, "Invalid", f"{resource.kind} is invalid: metadata.name: Required value")
        if (namespace, name) in self.of(resource):
            raise Refusal(409, "AlreadyExists", f'{resource.full_name} "{name}" already exists')
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": _now(), "generation": 1}
        if namespace:
            metadata["namespace"] = namespace
        made |= {"apiVersion": resource.api_version, "kind": resource.kind}
        return self._write(resource, (namespace, name), made)

    def update(self, resource: Resource, key: Key, body: Body, *, subresource: str = "") -> Stored:
        """Replace an object, or only its status; nothing is written, and no revision spent, if nothing changes."""
        old = self.get(resource, key)
        self._check_version(resource, key, old, body.get("metadata", {}))
        new = copy.deepcopy(old.body)
        if subresource == "status":
            new["status"] = copy.deepcopy(body.get("status", {}))
        else:
            kept_status = old.body.get("status")
            new = copy.deepcopy(body)
            fixed = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "namespace", "name")
            new["metadata"] = {**new.get("metadata", {}), **{f: old.metadata[f] for f in fixed if f in old.metadata}}
            new |= {"apiVersion": resource.api_version, "kind": resource.kind}
            if resource.status:
                new.pop("status", None)
                new |= {"status": kept_status} if kept_status is not None else {}
            if new.get("spec") != old.body.get("spec"):
                new["metadata"]["generation"] = old.metadata["generation"] + 1
        new["metadata"]["resourceVersion"] = old.metadata["resourceVersion"]
        if new == old.body:
            return old
        if "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers"):
            return self._remove(resource, key)
        return self._write(resource, key, new)

    def delete(self, resource: Resource, key: Key, preconditions: Mapping[str, str]) -> Stored:
        old = self.get(resource, key)
        for name in ("uid", "resourceVersion"):
            if preconditions.get(name, old.metadata[name]) != old.metadata[name]:
                raise Refusal(409, "Conflict", f"Precondition failed: {name} in precondition: {preconditions[name]}")
        if not old.metadata.get("finalizers"):
            return self._remove(resource, key)
        if "deletionTimestamp" in old.metadata:
            return old
        new = copy.deepcopy(old.body)
        new["metadata"] |= {"deletionTimestamp": _now(), "generation": old.metadata["generation"] + 1}
        return self._write(resource, key, new)

    def compact(self) -> None:
        """Forget every change so far, as etcd does every five minutes: older watches and lists are answered 410."""
        self.compacted = self.revision
        self.changes.clear()

    def since(self, revision: int) -> Iterable[Change]:
        """The changes after `revision`, oldest first."""
        start = len(self.changes)
        while start and self.changes[start - 1].revision > revision:
            start -= 1
        return self.changes[start:]

    def listed(self, resource: Resource, namespace: str) -> Iterator[tuple[Key, Stored]]:
        for key in sorted(self.of(resource)):
            if namespace in ("", key[0]):
                yield key, self.of(resource)[key]

    def _check_version(self, resource: Resource, key: Key, old: Stored, given: Body) -> None:
        version = given.get("resourceVersion", "")
        if not version and resource.conditional:
            raise Refusal(
                422, "Invalid", "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
            )
        if version and version != old.metadata["resourceVersion"]:
            message = (
                f'Operation cannot be fulfilled on {resource.full_name} "{key[1]}": the object has been modified; '
                "please apply your changes to the latest version and try again"
            )
            raise Refusal(409, "Conflict", message)

    def _write(self, resource: Resource, key: Key, body: Body) -> Stored:
        self.revision += 1
        body["metadata"]["resourceVersion"] = str(self.revision)
        stored = Stored.of(body)
        before = self.of(resource).get(key)
        self.of(resource)[key] = stored
        self._changed(Change(self.revision, resource, before, stored, stored))
        return stored

    def _remove(self, resource: Resource, key: Key) -> Stored:
        before = self.of(resource).pop(key)
        self.revision += 1
        last = copy.deepcopy(before.body)
        last["metadata"]["resourceVersion"] = str(self.revision)
        stored = Stored.of(last)
        self._changed(Change(self.revision, resource, before, None, stored))
        return stored

    def _changed(self, change: Change) -> None:
        self.changes.append(change)
        for wake in tuple(self.subscribers):
            wake()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
