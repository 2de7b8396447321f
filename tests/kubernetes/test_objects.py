"""A real API server takes every object that the chart renders, strictly, and grants the rights that it asks for."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.chart.rendered import CI, REPOSITORY, Object, render, values_of
from tests.kubernetes.cluster_of_tests import Cluster
from tests.kubernetes.crds import definitions
from tests.kubernetes.node.api import ApiError

KNATIVE = [
    it
    for block in re.findall(
        r"```yaml\n(.*?)```", (REPOSITORY / "docs/knative.md").read_text(encoding="utf-8"), re.DOTALL
    )
    for it in yaml.safe_load_all(block)
    if it["apiVersion"] == "serving.knative.dev/v1"
]


@pytest.fixture(scope="module")
def defined(cluster: Cluster) -> Cluster:
    """The cluster with other projects' kinds, as those projects define them."""
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 9}
    cluster.apply(priority)
    for definition in definitions():
        cluster.apply(definition)
        spec = definition["spec"]
        for version in spec["versions"]:
            cluster.wait_for(f"/apis/{spec['group']}/{version['name']}", spec["names"]["plural"])
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


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PrometheusRule", "ScaledObject"])
def test_a_field_that_another_projects_kind_does_not_have_is_refused(
    kind: str, defined: Cluster, namespace: str
) -> None:
    it = next(it for it in render(values_of("observed"), namespace=namespace) if it["kind"] == kind)
    it["metadata"]["namespace"] = namespace
    it["spec"]["misspelt"] = True

    with pytest.raises(ApiError, match=r"\.spec\.misspelt"):
        defined.apply(it, dry_run=True)


@pytest.mark.parametrize("service", KNATIVE, ids=["Cloud Run", "Knative"])
def test_knatives_definition_takes_the_services_of_the_docs(service: Object, defined: Cluster, namespace: str) -> None:
    service["metadata"]["namespace"] = namespace

    assert defined.apply(service, dry_run=True)["spec"]["template"]["spec"]["containers"]


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
