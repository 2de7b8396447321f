"""For the Kubernetes room: control plane and node as one, and how tests talk to them: in plain calls that wait."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.node.api import Api, ApiError, Object
from tests.kubernetes.node.kubelet import Kubelet
from tests.kubernetes.node.network import bridge_up
from tests.support.eventually import eventually

__all__ = ["Cluster"]

T = TypeVar("T")


class Cluster:
    """A cluster of one node. The node and the client live on an event loop in a thread of their own."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)
        self._resources: dict[tuple[str, str], Object] = {}
        self._node: asyncio.Task[None] | None = None
        self.kubelet: Kubelet
        self._api: Api

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Cluster]:
        """A cluster that is ready for Pods, until the block ends."""
        if os.environ.get("WORKQUEUE_TEST_NAMESPACES") != "made":
            raise RuntimeError(
                "these tests make a network of their own: run them by `make test-kubernetes`, as root on Linux"
            )
        bridge_up()
        with ControlPlane(folder) as plane:
            cluster = cls(plane, folder)
            thread = threading.Thread(target=cluster._loop.run_forever, daemon=True)
            thread.start()
            cluster._wait(cluster._begin())
            try:
                yield cluster
            finally:
                asyncio.run_coroutine_threadsafe(cluster._end(), cluster._loop).result(timeout=60)

    async def _begin(self) -> None:
        self._api = await Api(self.plane.url, self.plane.token, self.plane.ca).__aenter__()
        self.kubelet = Kubelet(self._api, self.plane.url, self._folder / "node")
        self._node = asyncio.create_task(self.kubelet.run())

    async def _end(self) -> None:
        if self._node is not None:
            node = self._node
            self._node = None
            node.cancel()
            await asyncio.gather(node, return_exceptions=True)
        await self._api.__aexit__()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._node is not None and self._node.done():
            work.close()
            self._node.result()  # why there is no node any more
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=120)

    def call(self, method: str, path: str, body: Object | None = None) -> Object:
        """One request to the API server as an administrator.

        Raises:
            ApiError: it was refused.
        """
        return self._wait(self._api.call(method, path, body))

    def call_all(self, calls: Iterable[tuple[str, str, Object | None]]) -> None:
        """Many requests, fifty at a time."""
        remaining = iter(calls)

        async def some() -> None:
            for method, path, body in remaining:
                await self._api.call(method, path, body)

        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(50):
                    tasks.create_task(some())

        self._wait(all_of_them())

    def apply(self, it: Object, *, dry_run: bool = False) -> Object:
        """Server-side apply, strict about fields that the API server does not know; a dry run keeps nothing."""
        path = f"{self.path_of(it)}?fieldManager=tests&fieldValidation=Strict&force=true{'&dryRun=All' * dry_run}"
        return self._wait(self._api.call("PATCH", path, it, "application/apply-patch+yaml"))

    def path_of(self, it: Object) -> str:
        """Where an object is, by its kind and names."""
        group = f"/apis/{it['apiVersion']}" if "/" in it["apiVersion"] else f"/api/{it['apiVersion']}"
        known = (it["apiVersion"], it["kind"])
        if known not in self._resources:
            resources = self.call("GET", group)["resources"]
            named = [one for one in resources if one["kind"] == it["kind"] and "/" not in one["name"]]
            [self._resources[known]] = named
        resource = self._resources[known]
        place = f"/namespaces/{it['metadata']['namespace']}" if resource["namespaced"] else ""
        return f"{group}{place}/{resource['name']}/{it['metadata']['name']}"

    def new_namespace(self) -> str:
        """A namespace that no other test uses, with the account that its Pods need."""
        name = f"test-{next(self._numbers)}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        eventually("the default account", lambda: self.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"))
        return name

    def exists(self, path: str) -> bool:
        """Whether there is an object at `path`."""
        try:
            self.call("GET", path)
        except ApiError as error:
            if error.code != 404:
                raise
            return False
        return True

    def wait_for(self, group: str, plural: str) -> None:
        """Wait until the API server serves a kind that was just defined."""

        def served() -> bool:
            try:
                return any(it["name"] == plural for it in self.call("GET", group)["resources"])
            except ApiError:
                return False

        eventually(f"{plural} of {group}", served)

    def secret(self, namespace: str, name: str, **data: str) -> None:
        metadata = {"name": name, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})

    def pods(self, namespace: str, **labels: str) -> list[Object]:
        """The Pods of a namespace that have these labels (app.kubernetes.io/ in front of each)."""
        selector = ",".join(f"app.kubernetes.io/{name}={value}" for name, value in labels.items())
        found: list[Object] = self.call("GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}")["items"]
        return found

    def run(self, namespace: str, name: str, *command: str, env: Mapping[str, str] | None = None) -> str:
        """What a Pod with this command writes, once it has succeeded."""
        container = {
            "name": "run", "image": "workqueue-dispatcher:here", "command": list(command),
            "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        }  # fmt: skip
        spec = {"restartPolicy": "Never", "containers": [container], "automountServiceAccountToken": False}
        self.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
        )

        def phase() -> str:
            found = self.call("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")["status"].get("phase", "")
            return str(found) if found in ("Succeeded", "Failed") else ""

        ended = eventually(f"the end of {name}", phase)
        written = self.kubelet.log(namespace, name, "run")
        assert ended == "Succeeded", written
        return written

    def report(self, namespace: str) -> str:
        """What went on in a namespace, for a test that failed."""
        lines = []
        for name in self.kubelet.names(namespace):
            try:
                it = self.call("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")
                lines.append(f"{name}: {it['status'].get('phase')} {it['status'].get('containerStatuses')}")
            except ApiError:
                lines.append(f"{name}: gone")
        return "\n".join(lines)
