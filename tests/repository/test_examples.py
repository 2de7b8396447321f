"""The examples run, as their reader would run them."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.kubernetes.server import KubernetesServer
from tests.support.processes import python, ran, started

ROOT = Path(__file__).parents[2]


def manifests(workspace: Path) -> list[str]:
    return [sys.executable, "-m", "examples.manifests", "--workspace", str(workspace)]


@pytest.mark.timeout(180)
def test_the_main_example_ends_by_itself_and_every_key_as_its_manifest_deserves(tmp_path: Path) -> None:
    ended = ran(manifests(tmp_path / "work"), timeout=120)
    output = ended.out
    assert ended.code == 0, output
    assert "10 done" in output
    assert "1 dead-lettered: failed 3 times, kept for an operator: broken" in output
    assert "1 dropped: cannot succeed, so it was not tried again: malformed" in output
    assert "2 of slow" in output, "edited once while it ran and enqueued twice: one more run"
    assert (tmp_path / "work/actual/slow/index.html").read_text() == "<h1>slow, second edition</h1>\n"
    assert sorted(path.name for path in (tmp_path / "work/actual/rollout").glob("replica-*")) == [
        "replica-1",
        "replica-2",
        "replica-3",
    ]


@pytest.mark.timeout(180)
def test_the_main_example_goes_on_where_kill_9_left_it(tmp_path: Path) -> None:
    with started(manifests(tmp_path / "work")) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "slow" in line and "in progress" in line)
        process.send_signal(signal.SIGKILL)
    second = ran(manifests(tmp_path / "work"), timeout=120)
    output = second.out
    assert second.code == 0, output
    assert "The last run did not end by itself" in output
    assert "recovered from the process that was killed" in output
    assert "10 done" in output


def test_a_producer_in_the_background_loses_no_key() -> None:
    done = python("-m", "examples.background_enqueuer")
    assert done.code == 0, done.err
    assert done.out.startswith("refused at once: ")
    assert "put 10000, " in done.out
    assert done.out.endswith(", failed 0\nin the queue: 100 keys\n")


def test_schedules_tick_and_say_when_they_fire_next() -> None:
    done = python("-m", "examples.schedules")
    assert done.code == 0, done.err
    assert done.out.startswith("heartbeat fires next at ")
    assert "\nnightly fires next at " in done.out
    assert done.out.count("heart: the tick of ") >= 3


def test_the_operator_makes_what_a_site_wants_and_cleans_up_after_it(tmp_path: Path) -> None:
    with KubernetesServer().in_thread() as server:
        (tmp_path / "config").write_text(server.kubeconfig())
        env = {"KUBECONFIG": str(tmp_path / "config"), "SITES_ROOT": str(tmp_path / "sites")}
        with started([sys.executable, "-m", "examples.operator"], env=env) as operator:
            server.create("Site", "home", spec={"html": "<h1>Home</h1>"})
            until(lambda: server.read("Site", "home").get("status") == {"observedGeneration": 1, "ready": True})
            page = server.read("ConfigMap", "home")
            assert page["data"] == {"index.html": "<h1>Home</h1>"}
            assert page["metadata"]["ownerReferences"][0]["name"] == "home"
            assert (tmp_path / "sites/default/home/index.html").read_text() == "<h1>Home</h1>"

            server.delete("ConfigMap", "home")
            until(lambda: "default/home" in server.names("ConfigMap"))

            server.delete("Site", "home")
            until(lambda: server.names("Site") == [])
            assert not (tmp_path / "sites/default/home").exists()
            writes = len([asked for asked in server.asked if asked.verb in ("create", "update", "patch", "delete")])
            assert writes < 12, "it wakes itself"

            operator.terminate()
            assert operator.wait(30) == 0


def until(happened: Callable[[], bool]) -> None:
    """Wait for what another process does; the test's timeout ends it."""
    while not happened():
        time.sleep(0.01)
