"""Stage 1: kinds of Kubernetes objects, where they are on the API server, and the names of objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workqueue.errors import InvalidSettingError

__all__ = ["Kind", "Resource", "name_of"]

_KIND = re.compile(r"(?:(?P<group>[a-z0-9.-]+)/)?(?P<version>v[a-z0-9]+)/(?P<kind>[A-Z][A-Za-z0-9]*)")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object: `apps/v1/Deployment`, or `v1/Pod` in the core group."""

    group: str
    version: str
    kind: str

    @classmethod
    def parse(cls, text: str) -> Kind:
        """Read `[group/]version/Kind`.

        Raises:
            InvalidSettingError: it is something else.
        """
        found = _KIND.fullmatch(text)
        if found is None:
            raise InvalidSettingError(
                f"a kind is [group/]version/Kind, such as apps/v1/Deployment or v1/Pod, not {text!r}"
            )
        return cls(found["group"] or "", found["version"], found["kind"])

    @property
    def api_version(self) -> str:
        """As objects say it in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def discovery_path(self) -> str:
        """Where the API server lists what its group and version have."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"

    def __str__(self) -> str:
        return f"{self.api_version}/{self.kind}"


@dataclass(frozen=True, slots=True)
class Resource:
    """Where the API server has the objects of a kind."""

    kind: Kind
    plural: str
    namespaced: bool

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of all objects, of those in `namespace`, or of one of them."""
        parts = [self.kind.discovery_path]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        return "/".join([*parts, *filter(None, (self.plural, name, subresource))])


def name_of(object_: Mapping[str, Any]) -> str:
    """`namespace/name` of an object; `name` if it is in no namespace."""
    metadata = object_["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])
