"""Each command that the chart renders starts as a process, serves its probes, and ends in order when it is told to."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.chart.rendered import CI, Object, containers, render_ci
from tests.fakes.kubernetes.server import KubernetesServer
from tests.fakes.redis_server import RedisServer
from tests.support.eventually import eventually
from tests.support.programs import process, serving
from tests.support.tls import Authority

MODULES = {"workqueue": "workqueue.cli", "dispatcher": "dispatcher.cli"}
SERVERS = [
    (name, it["metadata"]["name"])
    for name in CI
    for it, container in containers(render_ci(name))
    if "ports" in container
]
TOKEN = "a-token-that-is-long-enough-to-be-taken"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The way to an API server for those that watch one; Pods find theirs by their account."""
    config = tmp_path_factory.mktemp("kubernetes") / "config"
    with KubernetesServer().in_thread() as server:
        config.write_text(server.kubeconfig(), encoding="utf-8")
        yield config


def every_key() -> list[str]:
    """What a team's listing gives."""
    return ["a", "b"]


class Machine:
    """A folder in place of the volumes, and what the values call by names that only a cluster knows."""

    def __init__(self, folder: Path, store: str, kubeconfig: Path) -> None:
        self._folder = folder
        self._kubeconfig = kubeconfig
        self._store = store
        pair = Authority(folder).issue("127.0.0.1")
        for secret in ("tls", "ca", "cert", "token", "tokens"):
            (folder / secret).mkdir()
            (folder / secret / "tls.crt").write_bytes(pair.certificate.read_bytes())
            (folder / secret / "tls.key").write_bytes(pair.key.read_bytes())
            (folder / secret / "ca.crt").write_bytes((folder / "ca.pem").read_bytes())
            (folder / secret / secret).write_text(TOKEN + "\n", encoding="utf-8")

    def arguments(self, container: Object) -> list[str]:
        """The container's arguments with paths, addresses and ports of this machine; everything else as rendered."""
        here = [self._here(it) for it in container["args"]]
        ports = ["--grpc-port=0"] if any(it["name"] == "grpc" for it in container["ports"]) else []
        return [*here, *ports, "--http-port=0", "--probe-port=0"]

    def _here(self, argument: str) -> str:
        argument = argument.replace("/etc/workqueue", str(self._folder)).replace("--host=0.0.0.0", "--host=127.0.0.1")
        argument = re.sub(r"--keys=\S+", "--keys=tests.chart.test_commands:every_key", argument)
        return re.sub(r"--callback=\S+", "--callback=tests.support.reconcilers:complete", argument)

    def environment(self, container: Object) -> dict[str, str]:
        """The container's environment; the store is one of this machine's."""
        found = {it["name"]: it.get("value", "from-elsewhere") for it in container["env"]}
        if "WORKQUEUE_URL" in found:
            query = found["WORKQUEUE_URL"].partition("?")[2]
            store = f"sqlite:///{self._folder}/queue.db" if "sqlite" in found["WORKQUEUE_URL"] else self._store
            found["WORKQUEUE_URL"] = f"{store}?{query}" if query else store
        return found | {"WORKQUEUE_KUBECONFIG": str(self._kubeconfig)}


def status(port: int, path: str) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    connection.close()
    return answer.status


def answers(port: int, path: str, expected: int) -> bool:
    """Whether a probe is answered so; a watch is ready once it has listed."""
    return status(port, path) == expected


@pytest.mark.parametrize(("name", "workload"), SERVERS)
def test_a_rendered_server_starts_answers_its_probes_and_ends_with_0(
    name: str, workload: str, tmp_path: Path, redis: RedisServer, kubeconfig: Path
) -> None:
    [container] = [it for owner, it in containers(render_ci(name)) if owner["metadata"]["name"] == workload]
    machine = Machine(tmp_path, redis.url().partition("?")[0], kubeconfig)
    program, command = container["command"]

    with serving(MODULES[program], command, *machine.arguments(container), env=machine.environment(container)) as it:
        port = it.port("plaintext probes on")
        # A hyperqueue is not ready without its shards, whose names only a cluster knows.
        ready = 503 if any(argument.startswith("--shards=") for argument in container["args"]) else 200
        for probe, expected in (("startupProbe", 200), ("livenessProbe", 200), ("readinessProbe", ready)):
            path = container[probe].get("httpGet", {"path": "/readyz"})["path"]
            eventually(f"{probe}: {expected}", functools.partial(answers, port, path, expected))
        it.tell()
        assert it.ended() == 0


def test_a_rendered_round_runs_and_ends(redis: RedisServer) -> None:
    [container] = [it for owner, it in containers(render_ci("gcs")) if owner["kind"] == "CronJob"]

    ended = process(
        "dispatcher", "run", *container["args"][:1], "--target=grpc://127.0.0.1:1", "--owner=here",
        env={"WORKQUEUE_URL": redis.url()},
    )  # fmt: skip

    assert container["args"][0] == "--once"
    assert ended.code == 0
    assert "no key to start" in ended.err


def test_a_rendered_upgrade_check_looks_into_the_queue(redis: RedisServer) -> None:
    [check] = [it for owner, it in containers(render_ci("observed")) if owner["kind"] == "Job"]

    ended = process(
        check["command"][0], *check["command"][1:], *check.get("args", []), env={"WORKQUEUE_URL": redis.url()}
    )

    assert ended.code == 0
