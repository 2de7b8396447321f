"""A Kubernetes controller: watches enqueue keys, a dispatcher reconciles them, in one process.

async def reconcile(cluster: Cluster, key: str, attempt: Attempt) -> None: ...

asyncio.run(Controller([Watch("example.com/v1/Site")], reconcile).run())
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dispatcher.callback import Attempt
from dispatcher.controller.cluster import Cluster
from dispatcher.controller.events import AllErrors, KubernetesEvents
from dispatcher.controller.probes import ControllerProbes
from dispatcher.error_events import ErrorEvents
from dispatcher.loop import Dispatcher, run_until_signalled
from dispatcher.settings import DispatcherSettings
from workqueue.attempt import check_callback
from workqueue.backends import open_queue
from workqueue.errors import InfrastructureError, InvalidSettingError
from workqueue.fallbacks import FullQueue
from workqueue.leader import Elector
from workqueue.outcomes import Outcome, RequeueAfter
from workqueue.raised import as_one
from workqueue.signals import until_signalled
from workqueue.sources.kubernetes import API, ConflictError, KubernetesSource, UnreachableError, Watch
from workqueue.sources.kubernetes.election import KubernetesLease
from workqueue.sources.resync import BACKGROUND_PRIORITY

__all__ = ["Controller", "ControllerSettings", "Reconcile"]

log = logging.getLogger(__name__)

Reconcile = Callable[[Cluster, str, Attempt], Awaitable[Outcome | None]]
"""Makes the world as the object `key` wants it. Whatever it did before, it may be called again."""

_AFTER_CONFLICT = RequeueAfter(timedelta(seconds=1), jitter=timedelta(seconds=1))


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """How a controller goes about it.

    Args:
        name: who it is, in field managers and Events.
        resync: enqueue every key once in this time, spread over it; None = never.
        background_priority: of keys of which nobody knows that anything changed.
        kubeconfig: how to reach the API server; None = the pod's service account, or kubectl's own file.
        context: a context in it; None = its current one.
        lease: `namespace/name` of a Lease by which one of several processes is elected; '' = no election. Needed where
            each process has a queue of its own (`memory://`): in a queue that they share, keys have leases themselves.
        http_port: serve `/healthz`, `/readyz` and `/metrics` there; 0 = any free one, None = serve nothing.
        host: the address for that.
        insecure: it may be a public address, in plaintext, as kubelets and Prometheus ask.

    Raises:
        InvalidSettingError: a value is none that it can have.
    """

    name: str = "workqueue"
    resync: timedelta | None = timedelta(hours=10)
    background_priority: int = BACKGROUND_PRIORITY
    kubeconfig: Path | None = None
    context: str | None = None
    lease: str = ""
    http_port: int | None = None
    host: str = "127.0.0.1"
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.lease and len([part for part in self.lease.split("/") if part]) != 2:
            raise InvalidSettingError(f"lease is namespace/name, not {self.lease!r}")


class Controller:
    """Reconciles the keys of Kubernetes objects as these change.

    Args:
        watches: whose keys; the first that stands for itself is what Events are about.
        reconcile: called with the cluster, a key and its attempt, once the caches are complete. What it raises is a
            failure, but for a ConflictError, which means that a cache was behind: the key is reconciled again soon.
        queue: the URL of the queue.
        dispatch: concurrency, retries and so on; the default dead-letters a key at its 20th failure.
        errors: where failures are reported, beside Events on objects whose key was given up.
        settings: everything else.

    Raises:
        InvalidSettingError: there is nothing to watch, or `reconcile` cannot be called as it is to be.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        reconcile: Reconcile,
        queue: str = "memory://",
        dispatch: DispatcherSettings | None = None,
        errors: ErrorEvents | None = None,
        settings: ControllerSettings | None = None,
    ) -> None:
        if not watches:
            raise InvalidSettingError("a controller needs something to watch")
        check_callback(reconcile, "cluster", "key", "attempt")
        self._watches = watches
        self._reconcile = reconcile
        self._queue = queue
        self._dispatch = dispatch or DispatcherSettings(max_retry=20)
        self._errors = errors
        self._settings = settings or ControllerSettings()
        self._probes = ControllerProbes(self._settings.name)

    async def run(self) -> None:
        """Watch and reconcile until a signal or a cancellation; callbacks under way are drained first."""
        working = asyncio.ensure_future(self._run())
        with until_signalled(working.cancel):
            try:
                await asyncio.wait((working,))
            finally:
                working.cancel()
                await asyncio.wait((working,))
        if not working.cancelled():
            working.result()

    async def _run(self) -> None:
        settings = self._settings
        async with (
            self._probes.serving(settings.host, settings.http_port, insecure=settings.insecure),
            await API.connect(settings.kubeconfig, settings.context) as api,
        ):
            if settings.lease:
                namespace, _, name = settings.lease.partition("/")
                elector = Elector(KubernetesLease(api, namespace, name), socket.gethostname())
                await elector.run(lambda: self._work(api))
            else:
                await self._work(api)

    async def _work(self, api: API) -> None:
        async with open_queue(self._queue, owner=socket.gethostname()) as queue:
            source = KubernetesSource(
                api,
                self._watches,
                queue,
                resync=self._settings.resync,
                background_priority=self._settings.background_priority,
            )
            cluster = Cluster(api, {watch: source.cache(watch) for watch in self._watches}, self._settings.name)
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(source.run())
                await source.synced()  # a reconciler that reads half a cache would take the other half for deleted
                dispatcher = self._dispatcher(queue, cluster)
                async with self._probes.of(queue, dispatcher):
                    await run_until_signalled(dispatcher)
                watching.cancel()

    def _dispatcher(self, queue: FullQueue, cluster: Cluster) -> Dispatcher:
        async def reconcile(key: str, attempt: Attempt) -> Outcome | None:
            try:
                return await self._reconcile(cluster, key, attempt)
            except Exception as raised:
                error = as_one(raised)
                if isinstance(error, UnreachableError):
                    raise InfrastructureError(error) from error
                if not isinstance(error, ConflictError):
                    raise
                log.info("%r is reconciled again, its cache was behind: %s", key, error, extra={"key": key})
                return _AFTER_CONFLICT

        places = [KubernetesEvents(cluster, socket.gethostname()), *([self._errors] if self._errors else [])]
        return Dispatcher(queue, reconcile, self._dispatch, errors=AllErrors(places))
