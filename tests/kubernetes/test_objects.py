"""A real API server takes every object that the chart renders, strictly, and grants the rights that it asks for."""

from __future__ import annotations

import pytest

from tests.chart.rendered import CI, Object, render, values_of
from tests.kubernetes.cluster_of_tests import Cluster

# Stand-ins for other projects' kinds: any fields. Their own schemas are checked in tests/chart.
CUSTOM = {
    "ServiceMonitor": ("monitoring.coreos.com", "v1", "servicemonitors"),
    "PrometheusRule": ("monitoring.coreos.com", "v1", "prometheusrules"),
    "ScaledObject": ("keda.sh", "v1alpha1", "scaledobjects"),
}


def definition(kind: str, group: str, version: str, plural: str) -> Object:
    anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    served = {"name": version, "served": True, "storage": True, "schema": anything}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": [served]},
    }


@pytest.fixture(scope="module")
def defined(cluster: Cluster) -> Cluster:
    """The cluster with other projects' kinds defined."""
    for kind, (group, version, plural) in CUSTOM.items():
        cluster.apply(definition(kind, group, version, plural))
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 9}
    cluster.apply(priority)
    for group, version, plural in CUSTOM.values():
        cluster.wait_for(f"/apis/{group}/{version}", plural)
    return cluster


@pytest.mark.parametrize("name", CI)
def test_the_api_server_takes_every_object_strictly(name: str, defined: Cluster, namespace: str) -> None:
    objects = render(values_of(name), namespace=namespace)
    for other in {it["metadata"].get("namespace", namespace) for it in objects} - {namespace}:  # that a watch reads in
        defined.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}})
    for it in sorted(objects, key=lambda it: str(it["kind"] != "ServiceAccount")):  # a Pod is refused without its own
        it["metadata"].setdefault("namespace", namespace)  # as Helm does
        applied = defined.apply(it, dry_run=it["kind"] != "ServiceAccount")
        assert applied["kind"] == it["kind"]


def test_an_account_may_do_what_its_rules_say_and_nothing_else(cluster: Cluster, namespace: str) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "watch"]}]
    values = values_of("sqlite")
    values["queues"][0]["dispatcher"]["rules"] = rules
    for it in render(values, namespace=namespace):
        if it["kind"] in ("ServiceAccount", "Role", "RoleBinding"):
            cluster.apply(it)
    account = f"system:serviceaccount:{namespace}:release-workqueue-small-dispatcher"

    asked = {(verb, it): allowed(cluster, account, namespace, verb, it) for verb in VERBS for it in RESOURCES}

    assert {it for it, granted in asked.items() if granted} == {("get", "pods"), ("watch", "pods")}


VERBS = ("get", "list", "watch", "create", "update", "patch", "delete")
RESOURCES = ("pods", "secrets", "configmaps", "leases", "events")


def allowed(cluster: Cluster, account: str, namespace: str, verb: str, resource: str) -> bool:
    group = "coordination.k8s.io" if resource == "leases" else ""
    wanted = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": account, "resourceAttributes": wanted},
    }
    answer = cluster.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])
