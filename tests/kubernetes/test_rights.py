"""What a watch of the chart needs: each permission, when it is taken away, is named by one line in the log."""

from __future__ import annotations

import pytest

from tests.chart.rendered import Object, render
from tests.kubernetes.cluster_of_tests import Cluster
from tests.kubernetes.release import redis_in, with_test_settings
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(300)

NEEDED = [
    ("list", "configmaps"),
    ("watch", "configmaps"),
    ("get", "leases"),
    ("create", "leases"),
    ("update", "leases"),
]


@pytest.fixture(scope="module")
def store(cluster: Cluster) -> str:
    return redis_in(cluster, cluster.new_namespace())


def watching(store: str, namespace: str) -> list[Object]:
    """The objects of a watch, as the chart renders them, without the rest of the release."""
    settings = {"callback": "tests.kubernetes.reconcilers:complete"}
    queue = {"name": "q", "receiver": {"enabled": False}, "dispatcher": {"enabled": False, "settings": settings}}
    watches = [{"kind": "v1/ConfigMap", "resource": "configmaps"}]
    watch = {"name": "w", "program": "watch", "queue": "q", "watches": watches, "settings": {"namespace": [namespace]}}
    values = {"image": {"tag": "here"}, "store": {"redis": {"url": store}}, "queues": [queue], "workloads": [watch]}
    kinds = ("ServiceAccount", "Role", "RoleBinding", "Deployment")
    return [it for it in render(with_test_settings(values), namespace=namespace) if it["kind"] in kinds]


def without(objects: list[Object], verb: str, resource: str) -> None:
    """Take one permission away."""
    rules = [rule for it in objects if it["kind"] == "Role" for rule in it["rules"] if resource in rule["resources"]]
    for rule in rules:
        rule["verbs"] = [it for it in rule["verbs"] if it != verb] or ["patch"]  # a rule has a verb


def log_of(cluster: Cluster, namespace: str) -> list[str]:
    """What the watch has logged."""
    found = [name for name in cluster.kubelet.names(namespace) if "-w-" in name]
    return cluster.kubelet.log(namespace, found[0], "watch").splitlines() if found else []


def permissions(objects: list[Object]) -> set[tuple[str, str]]:
    rules = [rule for it in objects if it["kind"] == "Role" for rule in it["rules"]]
    return {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}


def test_the_chart_grants_what_is_needed_and_no_more(store: str) -> None:
    assert permissions(watching(store, "team")) == set(NEEDED)


@pytest.mark.parametrize(("verb", "resource"), NEEDED)
def test_a_permission_that_is_missing_is_named_in_one_line(
    verb: str, resource: str, cluster: Cluster, namespace: str, store: str
) -> None:
    objects = watching(store, namespace)
    without(objects, verb, resource)
    for it in objects:
        cluster.apply(it)

    eventually("a refusal", lambda: any("forbidden" in line for line in log_of(cluster, namespace)))
    for it in watching(store, namespace):
        cluster.apply(it)
    metadata = {"name": "seen", "namespace": namespace}  # a watch is known to go on when it brings something
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    eventually("its end, once the permission is granted", lambda: recovered(log_of(cluster, namespace)))

    [line] = [line for line in log_of(cluster, namespace) if "forbidden" in line]
    assert f'cannot {verb} resource "{resource}"' in line


def recovered(lines: list[str]) -> bool:
    """Whether it went on after a refusal."""
    refused = next(number for number, line in enumerate(lines) if "forbidden" in line)
    later = [line for line in lines[refused + 1 :] if "forbidden" not in line]
    return any("listed" in line or line.endswith((" again", " leads")) for line in later)
