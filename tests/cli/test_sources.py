"""The commands that enqueue what they watch, as processes of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.fakes.kubernetes.server import KubernetesServer
from tests.support.programs import serving, workqueue

OWNER = [{"apiVersion": "example.com/v1", "kind": "Site", "name": "home", "uid": "1"}]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KubernetesServer]:
    with KubernetesServer().in_thread() as running:
        (tmp_path / "kubeconfig").write_text(running.kubeconfig())
        yield running


@pytest.fixture
def watch(url: str, tmp_path: Path) -> list[str]:
    kubeconfig = str(tmp_path / "kubeconfig")
    return ["workqueue.cli", "watch", "--queue", url, "--kubeconfig", kubeconfig, "--http-port", "0"]


def queued(url: str) -> dict[str, int]:
    """The keys with their priorities."""
    listed = workqueue("ls", "--json", "--limit", "1000", "--queue", url).json["queued"]
    return {key["key"]: key["priority"] for key in listed}


def until_queued(url: str, *keys: str) -> None:
    while not set(keys) <= set(queued(url)):
        pass


def status(url: str, *, method: str = "GET", body: Any = None, content_type: str = "") -> tuple[int, str]:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": content_type} if content_type else {}, method=method)
    try:
        with urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_objects_of_several_kinds_become_keys_as_they_change(
    server: KubernetesServer, watch: list[str], url: str
) -> None:
    server.create("Site", "home")
    server.create("ConfigMap", "page", "other", ownerReferences=OWNER)
    with serving(*watch, "example.com/v1/Site", "v1/ConfigMap=owner:Site.example.com") as it:
        http = f"http://127.0.0.1:{it.port('health and metrics on')}"
        until_queued(url, "default/home", "other/home")
        assert set(queued(url).values()) == {-100}
        assert status(f"{http}/readyz")[0] == 200

        server.touch("ConfigMap", "page", "other")
        while queued(url)["other/home"] != 0:
            pass
        assert b"workqueue_added_keys" in urlopen(f"{http}/metrics").read()

        it.tell()
        assert it.ended() == 0


def test_of_two_that_stand_for_election_one_watches_and_the_other_takes_over_at_once(
    server: KubernetesServer, watch: list[str], url: str
) -> None:
    elected = [*watch, "v1/Pod", "--lease", "default/pods"]
    with serving(*elected) as first:
        first.logged("leads")
        first.logged("listed 0 of v1/Pod")
        with serving(*elected) as second:
            http = f"http://127.0.0.1:{second.port('health and metrics on')}"
            second.logged("waits")
            assert status(f"{http}/readyz")[0] == 200
            first.tell()
            assert first.ended() == 0
            second.logged("leads")
            server.create("Pod", "a")
            until_queued(url, "default/a")


def test_a_permission_that_is_missing_is_said_in_one_line(server: KubernetesServer, watch: list[str]) -> None:
    server.forbidden.add(("list", "pods"))
    with serving(*watch, "v1/Pod") as it:
        said = it.logged("cannot list")
        assert said.startswith("watching v1/Pod: pods is forbidden")
        it.tell()
        assert it.ended() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pods"], "apps/v1/Deployment"),
        (["v1/Pod=somewhere"], "package.module:name"),
        (["v1/Pod=json:absent"], "has no 'absent'"),
        (["v1/Pod", "--lease", "only-a-name"], "NAMESPACE/NAME"),
        (["v1/Pod", "--resync", "1ms"], "a second or more"),
        (["v1/Pod", "--kubeconfig", "/nowhere"], "no way to the Kubernetes API server"),
    ],
)
def test_a_setting_of_watch_that_is_wrong_stops_it_at_its_start(
    server: KubernetesServer, watch: list[str], arguments: list[str], said: str
) -> None:
    ended = workqueue(*watch[1:], *arguments)

    assert ended.code == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_cloudevents_become_keys_and_what_cannot_is_a_dead_letter_elsewhere(url: str, tmp_path: Path) -> None:
    letters = f"sqlite:///{tmp_path}/workqueue.db?name=unparsable"
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "com.example.x", "subject": "a"}
    flags = ["--key", "{source}/{subject}", "--filter", "type^=com.example.", "--unparsable", letters]
    with serving("workqueue.cli", "subscribe", "--queue", url, "--http-port", "0", *flags) as it:
        http = f"http://127.0.0.1:{it.port('health and metrics on')}"
        for body in (event, {**event, "type": "org.example", "subject": "of no interest"}, b"nonsense"):
            assert status(http, method="POST", body=body, content_type="application/cloudevents+json") == (202, "")
        assert queued(url) == {"/s/a": 0}
        assert "cannot be read" in workqueue("dead-letters", "ls", "--queue", letters).out
        assert status(f"{http}/readyz")[0] == 200
        it.tell()
        assert it.ended() == 0


@pytest.mark.parametrize(
    "flags", [["--key", "{"], ["--filter", "type"], ["--unparsable", "nowhere://"], ["--host", "0.0.0.0"]]
)
def test_a_setting_of_subscribe_that_is_wrong_stops_it_at_its_start(url: str, flags: list[str]) -> None:
    ended = workqueue("subscribe", "--queue", url, "--http-port", "0", *flags)

    assert ended.code == 2
    assert ended.err.count("\n") == 1


def test_a_subscription_whose_queue_cannot_be_reached_is_alive_and_not_ready() -> None:
    with serving("workqueue.cli", "subscribe", "--queue", "grpc://127.0.0.1:1", "--http-port", "0") as it:
        place = f"http://127.0.0.1:{it.port('health and metrics on')}"

        assert [status(f"{place}/{path}")[0] for path in ("healthz", "readyz")] == [200, 503]


def test_a_cron_job_does_one_slot_of_a_resync(url: str) -> None:
    command = f"{sys.executable} -c \"print('a'); print('b')\""
    flags = ["--queue", url, "--period", "1h", "--every", "1h", "--once"]

    ended = workqueue("resync", "--command", command, *flags)

    assert (ended.code, ended.out) == (0, "enqueued 2\n")
    assert queued(url) == {"a": -100, "b": -100}


def test_a_resync_runs_until_it_is_told_to_stop(url: str) -> None:
    flags = ["--queue", url, "--period", "1h", "--every", "1h", "--http-port", "0"]
    with serving("workqueue.cli", "resync", "--keys", "tests.cli.listing:keys", *flags) as it:
        it.logged("enqueued 3 keys")
        it.tell()
        assert it.ended() == 0
    assert set(queued(url)) == {"x", "y", "z"}


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--keys", "json:dumps", "--command", "true"],
        ["--keys", "json:absent"],
        ["--command", "true", "--every", "7m"],
        ["--command", "'"],
        ["--command", ""],
        ["--command", "no-such-program"],
    ],
)
def test_a_setting_of_resync_that_is_wrong_stops_it_at_its_start(url: str, flags: list[str]) -> None:
    ended = workqueue("resync", "--queue", url, "--once", *flags)

    assert ended.code == 2
    assert ended.err.count("\n") == 1
