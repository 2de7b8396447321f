"""deploy/compose.yaml: its commands, run as processes of this machine, take a key from enqueue to completion."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.prometheus import program
from tests.fakes.redis_server import RedisServer, free_port
from tests.support.eventually import eventually
from tests.support.processes import ran, started
from tests.support.programs import serving, workqueue

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
MODULES = {"workqueue": "workqueue.cli", "dispatcher": "dispatcher.cli"}
OURS = ("receiver", "dispatcher", "reconciler")


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return found


@contextmanager
def reconciler(port: int) -> Iterator[None]:
    command = services()["reconciler"]
    assert command["entrypoint"] == ["python", "/app/reconciler.py"]
    arguments = [*command["command"], "--host=127.0.0.1", f"--port={port}"]
    with started([sys.executable, DEPLOY / "reconciler.py", *arguments], out=False):
        yield


def test_a_key_is_taken_reconciled_and_counted() -> None:
    found, port = services(), free_port()
    receive, dispatch = found["receiver"], found["dispatcher"]
    here = ["--host=127.0.0.1", "--http-port=0"]
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        env = {"WORKQUEUE_URL": redis.url("demo")}
        stack.enter_context(reconciler(port))
        command = [*dispatch["command"], *here, f"--target=grpc://127.0.0.1:{port}"]
        stack.enter_context(serving(MODULES["dispatcher"], *command, env=env))
        module = MODULES[receive["entrypoint"][0]]
        receiver = stack.enter_context(serving(module, *receive["command"], *here, "--grpc-port=0", env=env))
        place = ["--queue", f"grpc://127.0.0.1:{receiver.port('listening on')}"]

        assert workqueue("enqueue", "hello", *place).code == 0
        eventually("the end of the key", lambda: workqueue("get", "hello", *place).code == 1)


@pytest.mark.parametrize("name", OURS)
def test_our_services_run_without_rights_and_have_time_to_drain(name: str) -> None:
    service = services()[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["stop_grace_period"] == "38s"


def test_every_folder_and_file_that_is_mounted_is_there() -> None:
    mounts = [mount for service in services().values() for mount in service.get("volumes", ()) if mount.startswith(".")]

    assert mounts
    assert [mount for mount in mounts if not (DEPLOY / mount.partition(":")[0]).exists()] == []


def test_nothing_is_to_be_had_from_outside_of_the_machine() -> None:
    ports = [port for service in services().values() for port in service.get("ports", ())]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_takes_its_configuration_with_the_alerts() -> None:
    command = [program("promtool"), "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")]
    done = ran(command)

    assert done.code == 0, done.out + done.err
    assert "rules found" in done.out


def test_grafana_shows_the_dashboards_of_the_chart() -> None:
    [provider] = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/workqueue.yaml").read_text("utf-8"))[
        "providers"
    ]
    mounts = dict(mount.split(":")[:2][::-1] for mount in services()["grafana"]["volumes"])

    assert list((DEPLOY / mounts[provider["options"]["path"]]).glob("*.json"))
