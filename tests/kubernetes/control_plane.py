"""For the Kubernetes room: a real etcd and API server with the controllers that the chart's objects need.

Everything listens inside the network namespace that `make test-kubernetes` runs in, which nothing outside can reach.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.kubernetes.binaries import binaries
from tests.kubernetes.node.network import BRIDGE

__all__ = ["SERVICES", "ControlPlane"]

SERVICES = "10.96.0.0/16"
_PORT = 6443
_TOKEN = "the-administrator-of-the-tests"
_CONTROLLERS = (
    "cronjob-controller", "deployment-controller", "disruption-controller", "endpointslice-controller",
    "garbage-collector-controller", "job-controller", "namespace-controller", "replicaset-controller",
    "root-ca-certificate-publisher-controller", "serviceaccount-controller",
)  # fmt: skip


@dataclass
class ControlPlane:
    """The servers; `with` starts them and waits until the API server is ready."""

    folder: Path
    url: str = f"https://{BRIDGE}:{_PORT}"
    token: str = _TOKEN
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def __enter__(self) -> ControlPlane:
        self._write_secrets()
        self.start_etcd()
        self.start_api_server()
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={self.folder}/accounts.key",
            f"--root-ca-file={self.ca}",
            f"--controllers={','.join(_CONTROLLERS)}",
            "--leader-elect=false",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)

    def start_etcd(self) -> None:
        self._start(
            "server",  # what `go build` calls go.etcd.io/etcd/server
            f"--data-dir={self.folder}/etcd",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",
            "--log-level=error",
        )

    def start_api_server(self) -> None:
        self._start(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--secure-port={_PORT}",
            f"--advertise-address={BRIDGE}",
            f"--tls-cert-file={self.folder}/server.crt",
            f"--tls-private-key-file={self.folder}/server.key",
            f"--token-auth-file={self.folder}/tokens.csv",
            "--authorization-mode=RBAC",
            f"--service-cluster-ip-range={SERVICES}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder}/accounts.key",
            f"--service-account-signing-key-file={self.folder}/accounts.key",
            "--endpoint-reconciler-type=none",
            "--event-ttl=10m",
        )
        self._await_ready()

    def stop(self, name: str) -> None:
        """End a server at once, as a crash does: one that is asked to end waits for its open watches first."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def forget(self) -> None:
        """Let etcd compact everything that was before now: whoever asks what happened since is answered 410."""
        now = self._etcd("kv/range", {"key": "Lw=="})["header"]["revision"]
        self._etcd("kv/compaction", {"revision": now, "physical": True})

    def _etcd(self, path: str, asked: dict[str, object]) -> Any:
        with urlopen(f"http://127.0.0.1:2379/v3/{path}", data=json.dumps(asked).encode(), timeout=30) as answer:
            return json.load(answer)

    @property
    def kubeconfig(self) -> Path:
        path = self.folder / "kubeconfig"
        path.write_text(self.kubeconfig_of(self.token), encoding="utf-8")
        return path

    def kubeconfig_of(self, token: str, url: str = "") -> str:
        """What lets who holds `token` in, for Helm and for the controllers; `url` is of a proxy in between."""
        return f"""\
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{url or self.url}", certificate-authority: "{self.ca}"}}}}]
users: [{{name: u, user: {{token: "{token}"}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""

    def _write_secrets(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        issued = authority.issue_cert(BRIDGE, "127.0.0.1", "kubernetes.default.svc")
        issued.private_key_pem.write_to_path(self.folder / "server.key")
        issued.cert_chain_pems[0].write_to_path(self.folder / "server.crt")
        (self.folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n', encoding="utf-8")
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (self.folder / "accounts.key").write_bytes(pem)

    def _start(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.log").open("ab") as log:
            self._running[program] = subprocess.Popen([binaries() / program, *arguments], stdout=log, stderr=log)

    def _await_ready(self) -> None:
        context = ssl.create_default_context(cafile=str(self.ca))
        asked = Request(f"{self.url}/readyz", headers={"Authorization": f"Bearer {self.token}"})
        for _ in self._patiently():
            with contextlib.suppress(URLError, OSError), urlopen(asked, timeout=5, context=context) as answer:
                if answer.status == 200:
                    return

    def _patiently(self, seconds: float = 180) -> Iterator[None]:
        """Tries until time is up, or one of the servers has ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise AssertionError(f"{name} ended with {process.returncode}: {self.log(name)[-2000:]}")
            yield
            time.sleep(0.2)
        raise AssertionError(f"the API server is not ready: {self.log('kube-apiserver')[-3000:]}")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
