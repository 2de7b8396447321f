"""One Pod's life on the node: network, volumes, containers, probes, status, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.kubernetes.node.api import Api, ApiError, Object
from tests.kubernetes.node.images import ETC, image_of
from tests.kubernetes.node.network import BRIDGE, join, leave
from tests.kubernetes.node.probes import Prober
from tests.kubernetes.node.volumes import Resolver

__all__ = ["Place", "RunningPod"]

_LAUNCHER = Path(__file__).with_name("container.py")
_MOST_BACKOFF_SECONDS = 10


@dataclass(frozen=True)
class Place:
    """Where the node keeps things: its folder, the claims, the hosts file's folder, the API server's port."""

    folder: Path
    claims: Path
    hosts: Path
    api_port: int


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Container:
    """One container: its process while it runs, and what its status says."""

    spec: Object
    process: asyncio.subprocess.Process | None = None
    prober: Prober | None = None
    restarts: int = 0
    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: Object = field(default_factory=dict)
    pid_file: Path = Path()

    @property
    def pid(self) -> int | None:
        """Process 1 of the container, as this machine counts, once it has been started."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(self.pid_file.read_text(encoding="ascii"))
        return None

    def status(self) -> Object:
        running = "running" in self.state
        ready = running and self.prober is not None and self.prober.ready
        started = running and self.prober is not None and self.prober.started
        return {
            "name": self.spec["name"], "image": self.spec["image"], "imageID": self.spec["image"], "state": self.state,
            "lastState": self.last_state, "ready": ready, "started": started, "restartCount": self.restarts,
        }  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None and self.pid is not None:
            subprocess.run(["kill", f"-{number.value}", str(self.pid)], check=False, capture_output=True)


class RunningPod:
    """Runs a Pod that is bound to this node, until it has ended or was deleted."""

    def __init__(self, api: Api, pod: Object, place: Place, address: str) -> None:
        self._api = api
        self._pod = pod
        self._place = place
        self._address = address
        self._folder = place.folder / pod["metadata"]["uid"]
        self._containers = [Container(spec) for spec in pod["spec"]["containers"]]
        self._network = f"pod-{address.replace('.', '-')}"
        self._ending = asyncio.Event()
        self._started_at = now()
        self._failure = ""

    @property
    def path(self) -> str:
        metadata: Object = self._pod["metadata"]
        return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"

    def log(self, container: str) -> str:
        """What a container has written, all its restarts."""
        written: str = ""
        with contextlib.suppress(FileNotFoundError):  # it has not begun
            written = (self._folder / f"{container}.log").read_text(encoding="utf-8", errors="replace")
        return written

    def end(self) -> None:
        """The Pod was deleted: let its containers end within their grace period."""
        self._ending.set()

    async def run(self) -> None:
        """From the network to the last status; a deleted Pod is removed from the API server at the end."""
        self._folder.mkdir()
        join(self._network, self._address)
        try:
            self._pod["status"] = {"podIP": self._address, "hostIP": BRIDGE}
            await self._report()
            volumes = await self._prepared(lambda: self._resolver(self._folder / "volumes").volumes())
            if volumes is not None:
                async with asyncio.TaskGroup() as tasks:
                    for container in self._containers:
                        tasks.create_task(self._keep(container, volumes))
                    tasks.create_task(self._terminate())
            await self._report()
        finally:
            leave(self._network)
        await self._ending.wait()
        with contextlib.suppress(ApiError):
            await self._api.call("DELETE", f"{self.path}?gracePeriodSeconds=0")

    def _resolver(self, folder: Path) -> Resolver:
        folder.mkdir(exist_ok=True)
        return Resolver(self._api, self._pod, folder, self._place.claims)

    async def _prepared(self, prepare: Callable[[], Awaitable[Any]]) -> Any:
        """What `prepare` gives, once what it needs is there: a Secret may come after its Pod. None: deleted before."""
        while not self._ending.is_set():
            try:
                return await prepare()
            except (ApiError, KeyError) as error:
                reason = {"reason": "CreateContainerConfigError", "message": str(error)}
                for container in self._containers:
                    container.state = {"waiting": reason}
                await self._report()
                await asyncio.sleep(0.5)
        return None

    async def _keep(self, container: Container, volumes: dict[str, Path]) -> None:
        """Run a container, again and again as its Pod's restart policy says."""
        policy, backoff = self._pod["spec"].get("restartPolicy", "Always"), 1.0
        while not self._ending.is_set():
            code = await self._once(container, volumes)
            if policy == "Never" or (policy == "OnFailure" and code == 0) or self._ending.is_set():
                return
            container.last_state = container.state
            container.state = {"waiting": {"reason": "CrashLoopBackOff"}}
            container.restarts += 1
            await self._report()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), backoff)
            backoff = min(backoff * 2, _MOST_BACKOFF_SECONDS)

    async def _once(self, container: Container, volumes: dict[str, Path]) -> int:
        """One run of a container, from its start to its exit code."""
        name = container.spec["name"]
        spec = await self._prepared(lambda: self._launched(container, volumes))
        if spec is None:
            return 0
        container.pid_file = Path(spec["pid_file"])
        container.pid_file.unlink(missing_ok=True)
        spec_file = self._folder / f"{name}.json"
        spec_file.write_text(json.dumps(spec), encoding="utf-8")
        with (self._folder / f"{name}.log").open("ab") as log:
            container.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(_LAUNCHER),
                str(spec_file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        begun = now()
        container.state = {"running": {"startedAt": begun}}
        container.prober = Prober(container.spec, self._address, self._report, lambda: self._kill(container))
        probing = asyncio.create_task(container.prober.run())
        await self._report()
        code = await container.process.wait()
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
        reason = "Completed" if code == 0 else "Error"
        container.state = {"terminated": {"exitCode": code, "reason": reason, "startedAt": begun, "finishedAt": now()}}
        await self._report()
        return code

    async def _launched(self, container: Container, volumes: dict[str, Path]) -> Object:
        """What container.py is told."""
        spec, pod = container.spec, self._pod
        security = pod["spec"].get("securityContext", {}) | spec.get("securityContext", {})
        image = image_of(spec["image"])
        env = image.env | {"KUBERNETES_SERVICE_HOST": BRIDGE, "KUBERNETES_SERVICE_PORT": str(self._place.api_port)}
        mounts = [
            {
                "source": str(volumes[it["name"]] / it.get("subPath", "")),
                "path": it["mountPath"],
                "read_only": it.get("readOnly", False),
            }
            for it in spec.get("volumeMounts", ())
        ]
        return {
            "image": image.folders,
            "etc": ETC,
            "hosts": str(self._place.hosts),
            "root": str(self._folder / f"{spec['name']}.root"),
            "pid_file": str(self._folder / f"{spec['name']}.pid"),
            "network": f"/run/netns/{self._network}",
            "hostname": pod["metadata"]["name"],
            "command": [*spec.get("command", ()), *spec.get("args", ())],
            "env": env | await self._resolver(self._folder / "volumes").environment(spec),
            "mounts": mounts,
            "user": security.get("runAsUser", 0),
            "group": security.get("runAsGroup", 0),
            "read_only_root": security.get("readOnlyRootFilesystem", False),
            "drop_all": "ALL" in security.get("capabilities", {}).get("drop", ()),
        }

    async def _terminate(self) -> None:
        """End every container once the Pod is deleted, or return when all have ended by themselves."""
        while not self._ending.is_set():
            if all(it.process is not None and "terminated" in it.state for it in self._containers):
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), 0.2)
        async with asyncio.TaskGroup() as tasks:
            for container in self._containers:
                tasks.create_task(self._kill(container))

    async def _kill(self, container: Container) -> None:
        """preStop, SIGTERM, and SIGKILL when the grace period is over."""
        grace = self._pod["spec"].get("terminationGracePeriodSeconds", 30)
        until = asyncio.get_running_loop().time() + grace
        sleep = container.spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        if self._ending.is_set():
            await asyncio.sleep(min(sleep.get("seconds", 0), grace))
        container.signal(signal.SIGTERM)
        process = container.process
        if process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), until - asyncio.get_running_loop().time())
                return
            self._failure = f"{container.spec['name']} was killed after {grace} s"
            container.signal(signal.SIGKILL)

    async def _report(self) -> None:
        """Write the Pod's status as it is now."""
        statuses = [it.status() for it in self._containers]
        ready = all(it["ready"] for it in statuses) and not self._ending.is_set()
        condition = {"status": "True" if ready else "False", "lastTransitionTime": now()}
        done = {"status": "True", "lastTransitionTime": self._started_at}
        conditions = [
            {"type": "Initialized", **done}, {"type": "PodScheduled", **done},
            {"type": "Ready", **condition}, {"type": "ContainersReady", **condition},
        ]  # fmt: skip
        status = {
            "phase": self._phase(), "podIP": self._address, "podIPs": [{"ip": self._address}], "hostIP": BRIDGE,
            "startTime": self._started_at, "conditions": conditions,
            "containerStatuses": statuses, "message": self._failure,
        }  # fmt: skip
        with contextlib.suppress(ApiError):
            await self._api.patch(f"{self.path}/status", {"status": status})

    def _phase(self) -> str:
        codes = [it.state.get("terminated", {}).get("exitCode") for it in self._containers]
        if all(code is not None for code in codes):
            return "Failed" if any(codes) else "Succeeded"
        return "Running" if any(it.process is not None for it in self._containers) else "Pending"
