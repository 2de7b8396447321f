"""Stage 1: keys from a Kubernetes API server: list and watch of any kind of object, a cache, a resync.

watch = Watch("apps/v1/Deployment", label_selector="app=web")
async with await API.connect() as api:
    await KubernetesSource(api, [watch], queue, resync=timedelta(hours=10)).run()
"""

from __future__ import annotations

from workqueue.sources.kubernetes.api import API, Object
from workqueue.sources.kubernetes.cache import Cache
from workqueue.sources.kubernetes.errors import (
    ConflictError,
    ForbiddenError,
    GoneError,
    KubernetesError,
    NotFoundError,
    UnreachableError,
)
from workqueue.sources.kubernetes.kinds import Kind, name_of
from workqueue.sources.kubernetes.mapping import KeysOf, annotation, itself, label, owner, prefixed
from workqueue.sources.kubernetes.source import KubernetesSource
from workqueue.sources.kubernetes.watches import Watch, nothing, whole, without_managed_fields

__all__ = [
    "API",
    "Cache",
    "ConflictError",
    "ForbiddenError",
    "GoneError",
    "KeysOf",
    "Kind",
    "KubernetesError",
    "KubernetesSource",
    "NotFoundError",
    "Object",
    "UnreachableError",
    "Watch",
    "annotation",
    "itself",
    "label",
    "name_of",
    "nothing",
    "owner",
    "prefixed",
    "whole",
    "without_managed_fields",
]
