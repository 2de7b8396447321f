"""The command that enqueues the keys of Kubernetes objects: watch."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from workqueue.cli.sources import PRIORITY, SourceFlags, SourcePort, showing
from workqueue.errors import InvalidSettingError
from workqueue.programs.converters import DURATION, FILE, Converter
from workqueue.programs.ending import run_server
from workqueue.programs.flags import Flag, naming, with_flags
from workqueue.programs.imported import imported

if TYPE_CHECKING:
    from workqueue.fallbacks import FullQueue
    from workqueue.leader import Elector
    from workqueue.rpc.client import Client
    from workqueue.sources.kubernetes import API, KeysOf, KubernetesSource, Watch

__all__ = ["ClusterFlags", "WatchFlags", "watch"]

_Kinds = Annotated[list[str], typer.Argument(metavar="KIND[=MAPPING]", help="such as apps/v1/Deployment")]


@dataclass(frozen=True, slots=True)
class ClusterFlags:
    """Which Kubernetes API server to ask, and which process of several does."""

    kubeconfig: Annotated[
        Path | None,
        Flag("how to reach the API server; none = the pod's service account", ("WORKQUEUE_KUBECONFIG",), FILE),
    ] = None
    context: Annotated[str | None, Flag("a context in the kubeconfig; none = its current one")] = None
    lease: Annotated[
        str | None,
        Flag("elect one process to watch by this Lease", ("WORKQUEUE_LEASE",), Converter("NAMESPACE/NAME", str)),
    ] = None

    def __post_init__(self) -> None:
        if self.lease is not None and len([part for part in self.lease.split("/") if part]) != 2:
            raise InvalidSettingError(f"--lease or WORKQUEUE_LEASE: it takes NAMESPACE/NAME, not {self.lease!r}")

    def elector(self, api: API) -> Elector | None:
        """Who decides whether this process is the one; None: nobody has to."""
        from workqueue.leader import Elector
        from workqueue.sources.kubernetes.election import KubernetesLease

        if self.lease is None:
            return None
        namespace, _, name = self.lease.partition("/")
        return Elector(KubernetesLease(api, namespace, name), socket.gethostname())


@dataclass(frozen=True, slots=True)
class WatchFlags:
    """Which objects, and how their keys are enqueued."""

    namespace: Annotated[tuple[str, ...], Flag("only objects in it; none = in all", many=True)] = ()
    selector: Annotated[str, Flag("only objects with these labels, as kubectl takes them")] = ""
    field_selector: Annotated[str, Flag("only objects with these fields, as kubectl takes them")] = ""
    priority: Annotated[int, Flag("of keys whose object changed", takes=PRIORITY)] = 0
    background_priority: Annotated[
        int, Flag("of keys of which nobody knows that anything changed: at the start, and of a resync", takes=PRIORITY)
    ] = -100
    resync: Annotated[timedelta | None, Flag("enqueue every key once in this time, spread over it", takes=DURATION)] = (
        None
    )

    def __post_init__(self) -> None:
        if self.resync is not None and self.resync < timedelta(seconds=1):
            raise InvalidSettingError(f"--resync: it takes a second or more, not {self.resync}")

    def watches(self, kinds: Sequence[str]) -> list[Watch]:
        """What to watch: each kind in each namespace.

        Raises:
            InvalidSettingError: a kind, a mapping or a number is none.
        """
        from workqueue.sources.kubernetes import Watch, nothing

        found = []
        for text in kinds:
            kind, _, mapping = text.partition("=")
            for namespace in self.namespace or ("",):
                with naming(f"KIND {text}"):
                    keys = _mapping(mapping)
                    found.append(
                        Watch(kind, namespace, self.selector, self.field_selector, keys, self.priority, keep=nothing)
                    )
        return found


def _mapping(text: str) -> KeysOf:
    """The mapping that `owner:Kind[.group]`, `label:NAME`, `annotation:NAME` or `package.module:function` means."""
    from workqueue.sources.kubernetes import annotation, itself, label, owner

    how, _, name = text.partition(":")
    if not text:
        return itself
    if how == "owner" and name:
        kind, dot, group = name.partition(".")
        return owner(kind, group=group if dot else None)
    if how in ("label", "annotation") and name:
        return label(name) if how == "label" else annotation(name)
    found = imported("MAPPING", text)
    if not callable(found):
        raise InvalidSettingError(f"MAPPING: {text} is no function from an object to keys")
    return cast("KeysOf", found)


@with_flags
def watch(kinds: _Kinds, objects: WatchFlags, cluster: ClusterFlags, source: SourceFlags, port: SourcePort) -> None:
    """Enqueue the keys of Kubernetes objects as they change.

    KIND is [group/]version/Kind. Its key is the object's namespace/name, or what MAPPING says: owner:Kind[.group],
    label:NAME, annotation:NAME, or a function of yours, package.module:function. --queue may be a receiver.
    """
    place = source.opened()
    run_server(_watch(objects.watches(kinds), objects, cluster, place, (source, port.http_port)))


async def _watch(
    watches: Sequence[Watch],
    flags: WatchFlags,
    cluster: ClusterFlags,
    place: Client | FullQueue,
    shown: tuple[SourceFlags, int],
) -> None:
    from workqueue.sources.kubernetes import API, KubernetesSource

    async with await API.connect(cluster.kubeconfig, cluster.context) as api, place as queue:
        elector = cluster.elector(api)
        following = _Following(elector)

        async def work() -> None:
            # Made anew for each term: what was known in the last one is not true any more.
            following.source = source = KubernetesSource(
                api, watches, queue, resync=flags.resync, background_priority=flags.background_priority
            )
            await source.run()

        async with showing(queue, shown[0].listen, shown[1]) as follow:
            follow(following)
            await (elector.run(work) if elector is not None else work())


class _Following:
    """Ready: the objects are listed, or another process leads and has them."""

    def __init__(self, elector: Elector | None) -> None:
        self._elector = elector
        self.source: KubernetesSource | None = None

    async def why_unready(self) -> str:
        if self._elector is not None and not self._elector.leading:
            return ""
        return "" if self.source is not None and self.source.ready else "the objects are not listed yet"
