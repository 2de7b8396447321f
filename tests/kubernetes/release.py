"""For the Kubernetes room: a release of the chart in a namespace, by Helm's own engine, and a Redis to stand on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from helm_python import Config

from tests.fakes.redis_server import server_binary
from tests.kubernetes.cluster_of_tests import Cluster
from tests.kubernetes.node.api import ApiError, Object
from tests.support.eventually import eventually

__all__ = ["CHART", "Release", "redis_in"]

CHART = Path(__file__).resolve().parents[2] / "charts" / "workqueue"
_PATIENCE_SECONDS = 150


class Release:
    """The chart as release `wq` in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str, chart: Path = CHART) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.chart = chart
        self._helm = Config(kubeconfig_path=cluster.plane.kubeconfig, namespace=namespace, qps=200, burst_limit=400)

    def install(self, values: Object) -> None:
        """Install, and wait until everything is ready."""
        self._helm.install(self.chart, "wq", with_test_settings(values), wait="watcher", timeout=_PATIENCE_SECONDS)

    def upgrade(self, values: Object, chart: Path | None = None) -> None:
        self._helm.upgrade(
            chart or self.chart, "wq", with_test_settings(values), wait="watcher", timeout=_PATIENCE_SECONDS
        )

    def rollback(self, version: int) -> None:
        self._helm.rollback("wq", version=version, wait="watcher", timeout=_PATIENCE_SECONDS)

    def test(self) -> str:
        """`helm test`; the log of its Pod."""
        done: dict[str, Any] = self._helm.test("wq", timeout=_PATIENCE_SECONDS)
        assert done["release"]
        return self.cluster.kubelet.log(self.namespace, "wq-workqueue-test", "round-trip")

    def uninstall(self) -> None:
        self._helm.uninstall("wq", wait="watcher", timeout=_PATIENCE_SECONDS)

    def history(self) -> list[Object]:
        found: list[Object] = self._helm.history("wq")
        return found

    def address(self, service: str) -> str:
        """The cluster address of a Service of the release."""
        path = f"/api/v1/namespaces/{self.namespace}/services/wq-workqueue-{service}"
        return str(self.cluster.call("GET", path)["spec"]["clusterIP"])

    def objects(self, *kinds: str) -> list[str]:
        """The names of what the release has left in the namespace, by kind."""
        left = []
        for kind in kinds:
            path = f"{kind.rpartition('/')[0]}/namespaces/{self.namespace}/{kind.rpartition('/')[2]}"
            found = self.cluster.call("GET", f"{path}?labelSelector=app.kubernetes.io/instance=wq")["items"]
            left += [f"{kind.rpartition('/')[2]}/{it['metadata']['name']}" for it in found]
        return left


def with_test_settings(values: Object) -> Object:
    """The values, with probes and pauses for a test: seconds would add up to minutes."""
    values = copy.deepcopy(values)
    defaults = values.setdefault("defaults", {})
    defaults.setdefault("preStopSeconds", 2)
    defaults.setdefault("probes", {"periodSeconds": 1, "failureThreshold": 20, "startupSeconds": 120})
    return values


def redis_in(cluster: Cluster, namespace: str, name: str = "redis") -> str:
    """A Redis in a Pod behind a Service; its URL inside the cluster."""
    command = [server_binary(), "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp"]
    labels = {"app": name}
    container: dict[str, object] = {
        "name": "redis",
        "image": "redis:7",
        "command": command,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    container["readinessProbe"] = {"tcpSocket": {"port": 6379}, "periodSeconds": 1}
    spec = {
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "automountServiceAccountToken": False,
    }
    pod = {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", **pod})
    service = {"selector": labels, "ports": [{"port": 6379}]}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": service}
    )
    eventually("a Redis that is ready", lambda: _ready(cluster, namespace, name))
    return f"redis://{name}.{namespace}.svc:6379"


def _ready(cluster: Cluster, namespace: str, name: str) -> bool:
    try:
        pod = cluster.call("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")
    except ApiError:
        return False
    conditions = pod["status"].get("conditions", ())
    return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)
