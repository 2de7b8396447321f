"""Every file of ci/ renders to objects that Kubernetes takes, strictly, and that run as little privileged as can be."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest
import yaml
from helm_python import Chart
from helm_python.chart import lint, package
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from tests.chart.rendered import CHART, CI, REPOSITORY, Object, containers, find, pods, render, render_ci, values_of

KUBERNETES = "v1.37.0-local-strict"
# Other projects' kinds. Their CRDs are applied, and these objects with them, on the real API server.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}


@cache
def validator(kind: str, api: str) -> Draft202012Validator:
    group, _, version = api.rpartition("/")
    name = f"{kind}-{group.partition('.')[0]}-{version}" if group else f"{kind}-{version}"
    schema = schema_contents(f"kubernetes-json-schema/{KUBERNETES}/{name.lower()}.json", KUBERNETES)
    return Draft202012Validator(schema, registry=Resource.from_contents(definitions()) @ Registry())


@cache
def definitions() -> Any:
    return schema_contents(f"kubernetes-json-schema/{KUBERNETES}/_definitions.json", KUBERNETES)


@pytest.mark.parametrize("name", CI)
def test_helm_finds_nothing_to_say_of_a_file_of_values(name: str) -> None:
    report = lint(CHART, values_of(name), strict=True, kube_version="v1.37.0")

    assert report["errors"] == []
    assert [it for it in report["messages"] if it["severity"] > 1] == []


def test_the_chart_says_what_to_do_when_there_is_no_queue() -> None:
    notes = Chart.load(CHART).render({}, name="release", namespace="team")["workqueue/templates/NOTES.txt"]

    assert "`queues` is empty" in notes


def test_the_values_that_the_docs_show_are_rendered() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs/deploy.md").read_text(encoding="utf-8"), re.DOTALL)
    values = {name: value for block in blocks for name, value in yaml.safe_load(block).items()}

    commands = {container["name"] for _, container in containers(render(values))}
    assert {it["program"] for it in values["workloads"]} | {"receiver", "dispatcher"} <= commands


@pytest.mark.parametrize("name", CI)
def test_kubernetes_knows_every_field_that_is_rendered(name: str) -> None:
    for it in render_ci(name):
        if it["kind"] not in CUSTOM:
            validator(it["kind"], it["apiVersion"]).validate(it)


@pytest.mark.parametrize("name", CI)
def test_the_objects_are_those_that_were_looked_at(name: str) -> None:
    golden = REPOSITORY / "tests" / "chart" / "golden" / f"{name}.yaml"

    assert yaml.safe_dump_all(render_ci(name), sort_keys=False) == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CI)
def test_no_two_objects_have_one_name(name: str) -> None:
    names = [(it["kind"], it["metadata"].get("namespace"), it["metadata"]["name"]) for it in render_ci(name)]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", CI)
def test_pods_have_no_rights_on_the_machine(name: str) -> None:
    objects = render_ci(name)
    granted = {it["subjects"][0]["name"] for it in objects if it["kind"] in ("RoleBinding", "ClusterRoleBinding")}
    for owner, spec in pods(objects):
        assert spec["enableServiceLinks"] is False, owner["metadata"]["name"]
        assert spec["automountServiceAccountToken"] is (spec["serviceAccountName"] in granted)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("name", CI)
def test_selectors_find_the_pods_of_their_own_workload_and_no_others(name: str) -> None:
    objects = render_ci(name)
    labels = {
        it["metadata"]["name"]: template["metadata"].get("labels", {})
        for it, template in ((it, it if it["kind"] == "Pod" else template_of(it)) for it, _ in pods(objects))
    }
    for it in objects:
        if it["kind"] in ("Service", "Deployment", "PodDisruptionBudget", "NetworkPolicy") and selector(it):
            found = [pod for pod, own in labels.items() if selector(it).items() <= own.items()]
            assert found == [it["metadata"]["name"]], it["kind"]


def template_of(it: Object) -> Object:
    spec = it["spec"]["jobTemplate"]["spec"] if it["kind"] == "CronJob" else it["spec"]
    template: Object = spec["template"]
    return template


def selector(it: Object) -> Object:
    found: Object = it["spec"].get("podSelector") or it["spec"]["selector"]
    labels: Object = found.get("matchLabels", found)
    return labels


def test_what_a_secret_holds_is_in_no_argument_and_no_value() -> None:
    [(_, container)] = [
        (it, container)
        for it, container in containers(render_ci("redis"))
        if it["metadata"]["name"] == "release-workqueue-builds-receiver"
    ]
    by_name = {it["name"]: it for it in container["env"]}

    assert by_name["STORE_URL"]["valueFrom"] == {"secretKeyRef": {"name": "redis", "key": "url"}}
    assert by_name["WORKQUEUE_URL"]["value"] == "$(STORE_URL)?name=builds&lease=30s"


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [({}, 38), ({"drainTimeout": "45s"}, 63), ({"drainTimeout": "2m"}, 138), ({"drainTimeout": "500ms"}, 19)],
)
def test_the_grace_period_is_18_s_longer_than_the_drain(settings: Object, seconds: int) -> None:
    objects = render(redis_queue({"settings": {"target": "grpc://reconciler", **settings}}))

    spec = find(objects, "Deployment", "dispatcher")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == seconds


def test_a_round_that_finds_no_store_is_tried_again_and_one_that_fails_is_not() -> None:
    job = find(render_ci("gcs"), "CronJob")["spec"]

    assert job["concurrencyPolicy"] == "Forbid"
    assert job["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0] == {
        "action": "Ignore",
        "onExitCodes": {"containerName": "rounds", "operator": "In", "values": [75]},
    }


def test_what_is_scaled_by_another_has_no_number_of_replicas_that_would_reset_it() -> None:
    observed, hyperqueue = render_ci("observed"), render_ci("hyperqueue")

    assert "replicas" not in find(observed, "Deployment", "builds-dispatcher")["spec"]
    assert "replicas" not in find(hyperqueue, "Deployment", "release-workqueue-keys")["spec"]


def test_zero_replicas_are_zero() -> None:
    deployment = find(
        render(redis_queue({"replicas": 0, "settings": {"target": "grpc://r"}})), "Deployment", "dispatcher"
    )

    assert deployment["spec"]["replicas"] == 0


def test_large_numbers_are_written_out() -> None:
    objects = render(redis_queue({"settings": {"target": "grpc://r", "concurrency": 10_000_000}}))

    [container] = find(objects, "Deployment", "dispatcher")["spec"]["template"]["spec"]["containers"]
    assert "--concurrency=10000000" in container["args"]


def test_rules_give_a_workload_an_account_of_its_own_with_just_these_rights() -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    objects = render(redis_queue({"rules": [rule], "settings": {"target": "grpc://r"}}))
    name = "release-workqueue-builds-dispatcher"

    assert find(objects, "Role")["rules"] == [rule]
    assert find(objects, "RoleBinding")["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "team"}]
    spec = find(objects, "Deployment", "dispatcher")["spec"]["template"]["spec"]
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == (name, True)
    assert find(objects, "Deployment", "receiver")["spec"]["template"]["spec"]["serviceAccountName"] != name


def test_a_source_of_a_sqlite_queue_goes_through_its_one_process() -> None:
    [container] = find(render_ci("sources"), "Deployment", "config")["spec"]["template"]["spec"]["containers"]
    urls = [it["value"] for it in container["env"] if it["name"] == "WORKQUEUE_URL"]

    assert urls == ["grpc://release-workqueue-small-dispatcher.team.svc:8090"]
    assert [it["name"] for it in container["volumeMounts"]] == ["tmp"]


def test_a_watch_may_read_what_it_watches_where_it_does_and_hold_its_own_lease() -> None:
    roles = [it for it in render_ci("sources") if it["kind"] == "Role" and "deployments" in it["metadata"]["name"]]
    by_place = {(it["metadata"]["name"].rpartition("-")[2], it["metadata"]["namespace"]): it["rules"] for it in roles}
    read = [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
    ]

    assert by_place.keys() == {("lease", "team"), ("deployments", "team"), ("deployments", "other")}
    assert by_place["deployments", "other"] == read
    assert [rule.get("resourceNames") for rule in by_place["lease", "team"]] == [
        ["release-workqueue-deployments"],
        None,
    ]


@pytest.mark.parametrize("when", ["skip", "render"])
def test_kinds_of_other_projects_are_left_out_or_rendered_where_they_are_missing(when: str) -> None:
    values = values_of("observed") | {"crds": {"whenMissing": when}}

    found = {it["kind"] for it in render(values)} & CUSTOM
    assert found == (CUSTOM if when == "render" else set())


def test_the_dashboards_are_those_of_the_repository() -> None:
    data = find(render_ci("observed"), "ConfigMap", "dashboards")["data"]

    assert {name: json.loads(text) for name, text in data.items()} == {
        path.name: json.loads(path.read_text(encoding="utf-8")) for path in (CHART / "dashboards").glob("*.json")
    }


def test_a_package_holds_what_the_folder_holds(tmp_path: Any) -> None:
    packaged = Chart.load(package(CHART, destination=tmp_path)).render(
        values_of("redis"), name="release", namespace="team"
    )

    assert packaged == Chart.load(CHART).render(values_of("redis"), name="release", namespace="team")


def redis_queue(dispatcher: Object) -> Object:
    return {"store": {"redis": {"url": "redis://redis"}}, "queues": [{"name": "builds", "dispatcher": dispatcher}]}


def test_callers_reach_a_console_where_networks_have_policies() -> None:
    people = {"namespaceSelector": {"matchLabels": {"team": "ingress"}}}
    policy = {"enabled": True, "callers": [people], "egress": [{"ports": [{"port": 6379}]}]}

    rules = find(render(values_of("sources") | {"networkPolicy": policy}), "NetworkPolicy", "screen")["spec"]["ingress"]

    assert [(rule["ports"][0]["port"], people in rule["from"]) for rule in rules] == [(8091, True)]


if __name__ == "__main__":  # writes the golden files anew: look at what changed before you commit it
    for name in CI:
        target = REPOSITORY / "tests" / "chart" / "golden" / f"{name}.yaml"
        target.write_text(yaml.safe_dump_all(render_ci(name), sort_keys=False), encoding="utf-8")
