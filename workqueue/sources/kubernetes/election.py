"""Stage 1: the lease of an election, as a Lease object of coordination.k8s.io."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from workqueue.clock import from_us, to_us
from workqueue.errors import StoreUnavailableError, StoreUnusableError
from workqueue.leader import LeaderLease
from workqueue.sources.kubernetes.api import API
from workqueue.sources.kubernetes.errors import ConflictError, KubernetesError, NotFoundError, UnreachableError

__all__ = ["KubernetesLease"]

_PATH = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
_SPEC = ("holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime", "leaseTransitions")


class KubernetesLease:
    """A Lease object, which is created when it is first written. Needs the verbs get, create and update on it.

    Args:
        api: the API server.
        namespace: where the Lease is.
        name: what it is called.
    """

    def __init__(self, api: API, namespace: str, name: str) -> None:
        self._api = api
        self._path = _PATH.format(namespace)
        self._name = name
        self._object: dict[str, Any] = {"metadata": {"name": name}}

    async def read(self) -> LeaderLease:
        """The Lease (see `LeaseStore.read`)."""
        try:
            self._object = await self._asked("GET", f"{self._path}/{self._name}")
        except NotFoundError:
            self._object = {"metadata": {"name": self._name}}
        return _lease(self._object)

    async def write(self, lease: LeaderLease) -> LeaderLease | None:
        """Create or update the Lease (see `LeaseStore.write`); what else it has is kept."""
        if lease.version != self._object["metadata"].get("resourceVersion", ""):
            return None
        body = {**self._object, "spec": {**self._object.get("spec", {}), **_spec(lease)}}
        try:
            if lease.version:
                self._object = await self._asked("PUT", f"{self._path}/{self._name}", body)
            else:
                self._object = await self._asked("POST", self._path, body)
        except (ConflictError, NotFoundError):
            return None
        return _lease(self._object)

    async def _asked(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            return await self._api.request(method, path, body=body)
        except (ConflictError, NotFoundError):
            raise
        except UnreachableError as error:
            raise StoreUnavailableError(f"Lease {self._name}: {error}") from error
        except KubernetesError as error:
            raise StoreUnusableError(f"Lease {self._name}: {error}") from error


def _lease(object_: dict[str, Any]) -> LeaderLease:
    found = object_.get("spec") or {}
    return LeaderLease(
        holder=found.get("holderIdentity") or "",
        seconds=int(found.get("leaseDurationSeconds") or 0),
        acquired_us=_us(found.get("acquireTime")),
        renewed_us=_us(found.get("renewTime")),
        transitions=int(found.get("leaseTransitions") or 0),
        version=object_["metadata"].get("resourceVersion", ""),
    )


def _spec(lease: LeaderLease) -> dict[str, Any]:
    values = (lease.holder, lease.seconds, _micro_time(lease.acquired_us), _micro_time(lease.renewed_us))
    return dict(zip(_SPEC, (*values, lease.transitions), strict=True))


def _us(moment: str | None) -> int:
    return to_us(datetime.fromisoformat(moment)) if moment else 0


def _micro_time(us: int) -> str:
    """A MicroTime, which always has six digits after the point."""
    return from_us(us).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
