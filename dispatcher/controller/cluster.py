"""Stage 5: Kubernetes objects as a reconciler reads and writes them: from caches, and so that twice does no harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workqueue.sources.kubernetes import API, Cache, Kind, NotFoundError, Object, Watch, itself, name_of

__all__ = ["Cluster"]

_APPLY = "application/apply-patch+yaml"


class Cluster:
    """Reads objects from the caches of a controller's watches, and writes to the API server.

    A cache may be a moment behind. So a write of a whole list names the version that it was made from, and raises
    ConflictError when there is a newer one; the controller then reconciles the key again, a second later.

    Args:
        api: the API server.
        caches: what is known, by watch.
        name: who writes, as field manager.
    """

    def __init__(self, api: API, caches: Mapping[Watch, Cache], name: str) -> None:
        self.api = api
        self.name = name
        self._caches = caches

    def get(self, kind: str, key: str) -> Object | None:
        """The object `namespace/name` of a kind that is watched, as last seen; None: there is none.

        Raises:
            KeyError: no watch has this kind.
        """
        found = (cache.get(key) for cache in self._of(kind))
        return next((object_ for object_ in found if object_ is not None), None)

    def find(self, kind: str, index: str, value: str) -> list[Object]:
        """The objects of a watched kind that have `value` in an index of their watch.

        Raises:
            KeyError: no watch has this kind, or this index.
        """
        found = [cache for watch, cache in self._caches.items() if watch.kind == kind and index in watch.indexes]
        if not found:
            raise KeyError(f"no watch of {kind} has an index {index!r}")
        return [object_ for cache in found for object_ in cache.find(index, value)]

    def subject(self, key: str) -> Object | None:
        """The object that a key names, of a watch in which each object stands for itself."""
        found = (cache.get(key) for watch, cache in self._caches.items() if watch.keys is itself)
        return next((object_ for object_ in found if object_ is not None), None)

    async def read(self, kind: str, key: str) -> Object | None:
        """The object `namespace/name` as the API server has it now; None: there is none."""
        namespace, _, name = key.rpartition("/")
        resource = await self.api.resource(Kind.parse(kind))
        try:
            return await self.api.request("GET", resource.path(namespace, name))
        except NotFoundError:
            return None

    async def apply(self, object_: Object, owner: Object | None = None) -> Object:
        """Create an object or make it as `object_` says, by a server-side apply; returns it.

        Fields that `object_` lacks are left to others, or removed where an earlier apply of ours had set them.

        Args:
            object_: with apiVersion, kind and metadata.name; without a namespace it is its owner's.
            owner: is made its controller: it is deleted with it, and `owner()` mappings find it.
        """
        made = dict(object_)
        metadata = made["metadata"] = dict(object_["metadata"])
        if owner is not None:
            if namespace := owner["metadata"].get("namespace"):
                metadata.setdefault("namespace", namespace)
            metadata["ownerReferences"] = [*metadata.get("ownerReferences", ()), _reference(owner)]
        query = {"fieldManager": self.name, "force": "true"}
        return await self.api.request("PATCH", await self._path(made), query, made, _APPLY)

    async def delete(self, object_: Object) -> None:
        """Delete this very object; one of its name that was made since, or none, is left alone."""
        body = {"preconditions": {"uid": object_["metadata"]["uid"]}}
        try:
            await self.api.request("DELETE", await self._path(object_), body=body)
        except NotFoundError:
            return

    async def set_status(self, object_: Object, status: Mapping[str, Any]) -> Object:
        """Change these fields of an object's status, if they are not so already; returns the object.

        Nothing is written when nothing changes, so that a controller does not wake itself for ever.
        """
        present = object_.get("status") or {}
        changed = {name: value for name, value in status.items() if name not in present or present[name] != value}
        if not changed:
            return object_
        return await self.api.patch(await self._path(object_, "status"), {"status": changed})

    async def add_finalizer(self, object_: Object, finalizer: str) -> Object:
        """Keep an object from vanishing before we have cleaned up; returns it. Call it before making what needs that.

        Raises:
            ConflictError: it was changed meanwhile; nothing was written.
        """
        present = _finalizers(object_)
        return object_ if finalizer in present else await self._set_finalizers(object_, [*present, finalizer])

    async def remove_finalizer(self, object_: Object, finalizer: str) -> None:
        """Let an object vanish. Call it when everything is cleaned up.

        Raises:
            ConflictError: it was changed meanwhile; nothing was written.
        """
        left = [each for each in _finalizers(object_) if each != finalizer]
        if len(left) < len(_finalizers(object_)):
            try:
                await self._set_finalizers(object_, left)
            except NotFoundError:  # it is gone already, and the cache has not heard of it
                return

    @staticmethod
    def is_deleted(object_: Object) -> bool:
        """Whether somebody has deleted it, so that only finalizers keep it."""
        return "deletionTimestamp" in object_["metadata"]

    async def _set_finalizers(self, object_: Object, finalizers: Sequence[str]) -> Object:
        version = object_["metadata"]["resourceVersion"]
        patch = {"metadata": {"finalizers": list(finalizers), "resourceVersion": version}}
        return await self.api.patch(await self._path(object_), patch)

    async def _path(self, object_: Object, subresource: str = "") -> str:
        kind = Kind.parse(f"{object_['apiVersion']}/{object_['kind']}")
        namespace, _, name = name_of(object_).rpartition("/")
        return (await self.api.resource(kind)).path(namespace, name, subresource)

    def _of(self, kind: str) -> list[Cache]:
        found = [cache for watch, cache in self._caches.items() if watch.kind == kind]
        if not found:
            raise KeyError(f"the controller does not watch {kind}")
        return found


def _finalizers(object_: Object) -> list[str]:
    return list(object_["metadata"].get("finalizers") or ())


def _reference(owner: Object) -> Object:
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
