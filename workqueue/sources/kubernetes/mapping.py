"""Stage 1: which keys have to look at an object. A mapping is any function from an object to keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from workqueue.sources.kubernetes.kinds import name_of

__all__ = ["KeysOf", "annotation", "itself", "label", "owner", "prefixed"]

KeysOf = Callable[[Mapping[str, Any]], Iterable[str]]
"""Given an object, the keys that have to look at it; none is allowed. It is called in the event loop: do no I/O."""


def itself(object_: Mapping[str, Any]) -> Iterable[str]:
    """The object's own `namespace/name`; `name` for what is in no namespace."""
    return (name_of(object_),)


def owner(kind: str, *, group: str | None = None, namespaced: bool = True) -> KeysOf:
    """The owners of a kind: `namespace/name` from `metadata.ownerReferences`.

    Args:
        kind: such as `Deployment`.
        group: such as `apps`; without it, of any group.
        namespaced: the owners are in the object's namespace; False for cluster-wide owners, whose key is their name.
    """

    def keys(object_: Mapping[str, Any]) -> Iterable[str]:
        metadata = object_["metadata"]
        for reference in metadata.get("ownerReferences") or ():
            its_group = reference["apiVersion"].rpartition("/")[0]
            if reference["kind"] == kind and group in (None, its_group):
                yield _beside(metadata, reference["name"]) if namespaced else reference["name"]

    return keys


def label(name: str, *, namespaced: bool = True) -> KeysOf:
    """What a label names: `namespace/value`, or the value alone where the named are in no namespace."""

    def keys(object_: Mapping[str, Any]) -> Iterable[str]:
        metadata = object_["metadata"]
        value = (metadata.get("labels") or {}).get(name)
        if value:
            yield _beside(metadata, value) if namespaced else value

    return keys


def annotation(name: str, *, namespaced: bool = True) -> KeysOf:
    """What an annotation names, separated by commas: `namespace/name` as it is, a bare name in the object's namespace.

    Args:
        name: of the annotation.
        namespaced: False: bare names are of cluster-wide objects, and are keys as they are.
    """

    def keys(object_: Mapping[str, Any]) -> Iterable[str]:
        metadata = object_["metadata"]
        for each in (metadata.get("annotations") or {}).get(name, "").split(","):
            if named := each.strip():
                yield _beside(metadata, named) if namespaced and "/" not in named else named

    return keys


def prefixed(prefix: str, keys_of: KeysOf = itself) -> KeysOf:
    """The keys of another mapping with a prefix, for kinds that share a queue."""
    return lambda object_: [prefix + key for key in keys_of(object_)]


def _beside(metadata: Mapping[str, Any], name: str) -> str:
    namespace = metadata.get("namespace")
    return f"{namespace}/{name}" if namespace else name
