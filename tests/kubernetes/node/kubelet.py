"""The node: it registers itself, binds every Pod to itself, runs those bound to it, and proxies Services.

What it does not do: images are folders of this machine (see `images`), NetworkPolicies are not enforced, resources are
not limited, and there is one node. Everything else of a Pod that the chart uses is done as a kubelet does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import urlsplit

from tests.kubernetes.node.api import Api, ApiError, Object
from tests.kubernetes.node.pod import Place, RunningPod
from tests.kubernetes.node.services import Services

__all__ = ["Kubelet"]

log = logging.getLogger(__name__)

_NAME = "node"
_FIRST_ADDRESS = IPv4Address("10.88.1.1")


class Kubelet:
    """Runs Pods until it is cancelled.

    Args:
        api: as an administrator.
        url: of the API server, as Pods see it.
        folder: for the Pods, their logs and claims.
    """

    def __init__(self, api: Api, url: str, folder: Path) -> None:
        self._api = api
        for name in ("pods", "claims", "hosts"):
            (folder / name).mkdir(parents=True)
        self._place = Place(folder / "pods", folder / "claims", folder / "hosts", urlsplit(url).port or 443)
        self._services = Services(api, folder / "hosts")
        self._pods: dict[str, RunningPod] = {}
        self._names: dict[tuple[str, str], RunningPod] = {}
        self._given = 0

    def log(self, namespace: str, pod: str, container: str) -> str:
        """What a container of a Pod, also of one that is gone, has written."""
        return self._names[namespace, pod].log(container)

    def names(self, namespace: str) -> list[str]:
        """Every Pod of a namespace that has ever run here."""
        return [name for place, name in self._names if place == namespace]

    async def run(self) -> None:
        """Register, then follow the Pods."""
        node: Object = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": _NAME}}
        with contextlib.suppress(ApiError):
            await self._api.call("POST", "/api/v1/nodes", node)
        ready = {"type": "Ready", "status": "True", "reason": "Here", "message": ""}
        await self._api.patch(f"/api/v1/nodes/{_NAME}/status", {"status": {"conditions": [ready]}})
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._services.run())
            async for event, pod in self._api.watch("/api/v1/pods"):
                await self._heed(event, pod, tasks)

    async def _heed(self, event: str, pod: Object, tasks: asyncio.TaskGroup) -> None:
        uid = pod["metadata"]["uid"]
        known = self._pods.get(uid)
        if event == "DELETED" or "deletionTimestamp" in pod["metadata"]:
            if known is not None:
                known.end()
            elif event != "DELETED":  # deleted before it ran here
                await self._remove(pod)
        elif "nodeName" not in pod["spec"]:
            await self._bind(pod)
        elif known is None and pod["status"].get("phase") == "Pending":
            self._start(pod, tasks)

    def _start(self, pod: Object, tasks: asyncio.TaskGroup) -> None:
        metadata = pod["metadata"]
        self._given += 1
        running = RunningPod(self._api, pod, self._place, str(_FIRST_ADDRESS + self._given))
        self._pods[metadata["uid"]] = self._names[metadata["namespace"], metadata["name"]] = running
        tasks.create_task(self._run(running, metadata["name"]))

    async def _run(self, running: RunningPod, name: str) -> None:
        try:
            await running.run()
        except Exception:
            log.exception("the Pod %s broke the node", name)
            raise

    async def _bind(self, pod: Object) -> None:
        metadata = pod["metadata"]
        binding: Object = {
            "kind": "Binding", "apiVersion": "v1", "metadata": {"name": metadata["name"]},
            "target": {"kind": "Node", "name": _NAME},
        }  # fmt: skip
        with contextlib.suppress(ApiError):
            await self._api.call("POST", f"{self._path(pod)}/binding", binding)

    async def _remove(self, pod: Object) -> None:
        with contextlib.suppress(ApiError):
            await self._api.call("DELETE", f"{self._path(pod)}?gracePeriodSeconds=0")

    @staticmethod
    def _path(pod: Object) -> str:
        return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
