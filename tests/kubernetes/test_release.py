"""A release's life on a real API server: installed, tested, upgraded under load, rolled back, uninstalled."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from helm_python.errors import HelmError

from tests.kubernetes.cluster_of_tests import Cluster
from tests.kubernetes.node.api import Object
from tests.kubernetes.release import Release, redis_in
from tests.support.eventually import eventually
from tests.support.programs import workqueue

pytestmark = pytest.mark.timeout(600)


def queue_of(url: str, callback: str = "tests.kubernetes.reconcilers:complete", **dispatcher: object) -> Object:
    settings = {"callback": callback, "concurrency": 4, "pollPeriod": "1s", "drainTimeout": "10s"}
    queue = {"name": "q", "dispatcher": {"settings": settings, **dispatcher}}
    return {"image": {"tag": "here"}, "store": {"redis": {"url": url}, "options": {"lease": "10s"}}, "queues": [queue]}


def recorded(cluster: Cluster, namespace: str, **dispatcher: object) -> Object:
    """The queue on a Redis of its own, whose callbacks write a ledger there; see `ledger_of`."""
    url = redis_in(cluster, namespace)
    ledger = {"name": "LEDGER_URL", "value": url}
    return queue_of(url, "tests.kubernetes.reconcilers:recorded", extraEnv=[ledger], **dispatcher)


def pods_by_name(cluster: Cluster, namespace: str) -> dict[str, Object]:
    """The servers' Pods that nobody has told to end."""
    found = {pod["metadata"]["name"]: pod for pod in cluster.pods(namespace, instance="wq")}
    ended = ("Succeeded", "Failed")
    return {
        name: pod
        for name, pod in found.items()
        if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") not in ended
    }


def test_a_release_is_installed_tested_upgraded_rolled_back_and_uninstalled(cluster: Cluster, namespace: str) -> None:
    release = Release(cluster, namespace)
    values = queue_of(redis_in(cluster, namespace))

    release.install(values)
    first = pods_by_name(cluster, namespace)
    assert "shows metrics" in release.test()

    values["queues"][0]["dispatcher"]["settings"]["concurrency"] = 5
    release.upgrade(values)
    release.rollback(1)

    assert [it["status"] for it in release.history()] == ["superseded", "superseded", "deployed"]
    [dispatcher] = [pod for name, pod in pods_by_name(cluster, namespace).items() if "dispatcher" in name]
    assert dispatcher["metadata"]["name"] not in first
    assert "--concurrency=4" in dispatcher["spec"]["containers"][0]["args"]

    release.uninstall()
    eventually("the end of every Pod", lambda: not pods_by_name(cluster, namespace))
    kinds = ("/apis/apps/v1/deployments", "/api/v1/services", "/api/v1/serviceaccounts", "/apis/batch/v1/jobs")
    assert release.objects(*kinds) == []


@contextmanager
def producing(address: str, namespace: str) -> Iterator[list[str]]:
    """Enqueue one key after another through the receiver's Service; the block gets those that were acknowledged."""
    taken: list[str] = []
    ending = threading.Event()

    def produce() -> None:
        while not ending.is_set():
            key = f"{namespace}/{len(taken)}"
            assert workqueue("enqueue", key, "--queue", f"grpc://{address}:8090", "--patience", "30s").code == 0
            taken.append(key)
            ending.wait(0.05)

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield taken
    finally:
        ending.set()
        thread.join()


def ledger_of(cluster: Cluster, namespace: str) -> list[tuple[int, str]]:
    """What the callbacks wrote: at which attempt they ran for which key."""
    address = cluster.call("GET", f"/api/v1/namespaces/{namespace}/services/redis")["spec"]["clusterIP"]
    with redis.Redis(address) as client:
        lines = [line.decode().split(" ", 1) for line in client.lrange("ledger", 0, -1)]
    return [(int(attempt), key) for attempt, key in lines]


def test_an_update_under_load_to_a_release_with_another_layout_loses_no_key_and_spends_no_attempt(
    cluster: Cluster, namespace: str, next_release: str
) -> None:
    release = Release(cluster, namespace)
    values = recorded(cluster, namespace, replicas=2)
    release.install(values)
    before = pods_by_name(cluster, namespace)

    with producing(release.address("q-receiver"), namespace) as taken:
        eventually("keys before the update", lambda: len(taken) > 5)
        release.upgrade(values | {"image": {"tag": next_release}})
        under_way = len(taken)
        eventually("keys after the update", lambda: len(taken) > under_way + 5)

    eventually("the end of every key", lambda: {key for _, key in ledger_of(cluster, namespace)} >= set(taken))
    written = ledger_of(cluster, namespace)
    assert not before.keys() & pods_by_name(cluster, namespace).keys()
    assert Counter(attempt for attempt, _ in written) == {1: len(written)}
    assert len(written) == len(taken)


def test_a_sqlite_queue_keeps_its_keys_over_an_upgrade_and_beyond_the_release(cluster: Cluster, namespace: str) -> None:
    release = Release(cluster, namespace)
    values = queue_of("")
    values["store"] = {"type": "sqlite"}
    release.install(values)
    assert "completed helm-test/wq" in release.test()
    place = ["--queue", f"grpc://{release.address('q-dispatcher')}:8090", "--patience", "60s"]
    assert workqueue("enqueue", "later", "--delay", "1h", *place).code == 0

    release.upgrade(values | {"defaults": {"podAnnotations": {"rolled": "once"}}})

    assert workqueue("get", "later", *place).code == 0
    release.uninstall()
    assert release.objects("/api/v1/persistentvolumeclaims") == ["persistentvolumeclaims/wq-workqueue-q"]


def test_a_release_that_does_not_know_a_sqlite_files_layout_is_stopped_while_the_queue_goes_on(
    cluster: Cluster, namespace: str, next_release: str
) -> None:
    release = Release(cluster, namespace)
    values = queue_of("") | {"store": {"type": "sqlite"}}
    release.install(values | {"image": {"tag": next_release}})
    before = pods_by_name(cluster, namespace).keys()

    with pytest.raises(HelmError, match="pre-upgrade"):
        release.upgrade(values)

    [check] = [it for it in cluster.kubelet.names(namespace) if "check" in it]
    assert "has layout 2, this release works layout 1" in cluster.kubelet.log(namespace, check, "check")
    assert pods_by_name(cluster, namespace).keys() == before
    place = ["--queue", f"grpc://{release.address('q-dispatcher')}:8090", "--patience", "60s"]
    assert workqueue("enqueue", "later", "--delay", "1h", *place).code == 0


def test_every_program_of_a_release_is_ready_and_a_config_map_becomes_a_key(cluster: Cluster, namespace: str) -> None:
    release = Release(cluster, namespace)
    url = redis_in(cluster, namespace)
    values = queue_of(url, "tests.kubernetes.reconcilers:recorded", extraEnv=[{"name": "LEDGER_URL", "value": url}])
    watches = [{"kind": "v1/ConfigMap", "resource": "configmaps"}]
    relay = {"store": {"type": "redis", "redis": {"url": url}}, "settings": {"allowTarget": ["api.example"]}}
    further: dict[str, Object] = {
        "watch": {"watches": watches, "settings": {"namespace": [namespace], "selector": "wanted=yes"}},
        "resync": {"settings": {"keys": "tests.kubernetes.reconcilers:every_key", "every": "1h"}},
    }
    programs = ("watch", "subscribe", "resync", "scaler", "schedules")
    workloads = [{"name": it, "program": it, "queue": "q", **further.get(it, {})} for it in programs]
    values["workloads"] = [*workloads, {"name": "relay", "program": "relay", **relay}]
    values["hyperqueues"] = [{"name": "front", "shards": ["q"]}]

    release.install(values)
    assert "shows metrics" in release.test()
    metadata = {"name": "wanted", "namespace": namespace, "labels": {"wanted": "yes"}}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    wanted = f"{namespace}/wanted"
    eventually("the ConfigMap's attempt", lambda: wanted in {key for _, key in ledger_of(cluster, namespace)})
    assert len(pods_by_name(cluster, namespace)) == 9


def test_a_release_that_does_not_know_the_stores_layout_is_stopped_before_it_begins_and_nothing_is_lost(
    cluster: Cluster, namespace: str, next_release: str
) -> None:
    release = Release(cluster, namespace)
    values = recorded(cluster, namespace)
    release.install(values | {"image": {"tag": next_release}})
    before = pods_by_name(cluster, namespace).keys()

    with producing(release.address("q-receiver"), namespace) as taken:
        with pytest.raises(HelmError, match="pre-upgrade"):
            release.upgrade(values)
        refused_at = len(taken)
        eventually("keys after the refusal", lambda: len(taken) > refused_at)

    [check] = [it for it in cluster.kubelet.names(namespace) if "check" in it]
    assert "layout 2, known: 1" in cluster.kubelet.log(namespace, check, "check")
    assert pods_by_name(cluster, namespace).keys() == before
    eventually("the end of every key", lambda: {key for _, key in ledger_of(cluster, namespace)} >= set(taken))
    assert {attempt for attempt, _ in ledger_of(cluster, namespace)} == {1}


def test_a_round_outlives_a_store_that_is_away_and_is_done_when_it_is_back(cluster: Cluster, namespace: str) -> None:
    release = Release(cluster, namespace)
    values = queue_of(f"redis://redis.{namespace}.svc:6379", mode="rounds", rounds={"schedule": "0 0 1 1 *"})
    values["queues"][0]["receiver"] = {"enabled": False}
    release.install(values)
    template = cluster.call("GET", f"/apis/batch/v1/namespaces/{namespace}/cronjobs/wq-workqueue-q-dispatcher")
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    metadata = {"name": "round", "namespace": namespace}
    cluster.call("POST", path, {"metadata": metadata, "spec": template["spec"]["jobTemplate"]["spec"]})

    def exits() -> list[int]:
        pods = [it for it in cluster.pods(namespace) if it["metadata"]["name"].startswith("round-")]
        states = [it["status"].get("containerStatuses", [{}])[0].get("state", {}) for it in pods]
        return [it["terminated"]["exitCode"] for it in states if "terminated" in it]

    eventually("a round without a store", lambda: 75 in exits(), seconds=180)
    redis_in(cluster, namespace)

    done = lambda: cluster.call("GET", f"{path}/round")["status"].get("succeeded")  # noqa: E731
    eventually("the round's success", done, seconds=240)
    assert "failed" not in cluster.call("GET", f"{path}/round")["status"]
