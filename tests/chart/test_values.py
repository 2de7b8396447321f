"""Wrong values are refused in a line that names them; what is generated from the values is what is committed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from helm_python.errors import HelmError

from charts.__main__ import GENERATED, generated
from charts.settings import PROGRAMS
from tests.chart.rendered import CHART, Object, render, values_of

QUEUE: Object = {"name": "builds", "dispatcher": {"settings": {"target": "grpc://reconciler:8080"}}}
VALUES: Object = {"store": {"redis": {"url": "redis://redis"}}, "queues": [QUEUE]}

WATCH: Object = {"name": "x", "program": "watch", "queue": "builds"}
SCALER: Object = {"name": "y", "program": "scaler", "queue": "builds"}
CONFIG: Object = {"kind": "v1/ConfigMap", "resource": "configmaps"}

# Where a wrong value stands, the value, and what the refusal has to name.
WRONG: list[tuple[str, Any, str]] = [
    ("replicas", 3, "replicas"),
    ("image.tag", 7, "tag"),
    ("image.digest", "latest", "digest"),
    ("image.pullPolicy", "Sometimes", "pullPolicy"),
    ("store.type", "mysql", "type"),
    ("store.redis.url", "http://redis", "url"),
    ("store.redis.url", "redis://redis?name=x", "url"),
    ("store.sqlite.size", "5 GB", "size"),
    ("queues.0.name", "Builds!", "name"),
    ("queues.0.dispatcher.replicas", "three", "replicas"),
    ("queues.0.dispatcher.mode", "sometimes", "mode"),
    ("queues.0.dispatcher.settings.concurrency", 0, "concurrency"),
    ("queues.0.dispatcher.settings.maxRetry", "5", "maxRetry"),
    ("queues.0.dispatcher.settings.drainTimeout", "soon", "drainTimeout"),
    ("queues.0.dispatcher.settings.drainTimeOut", "20s", "drainTimeOut"),
    ("queues.0.dispatcher.settings.logLevel", "loud", "logLevel"),
    ("queues.0.receiver.settings.concurrency", 5, "concurrency"),
    ("queues.0.receiver.extraEnv", [{"value": "x"}], "extraEnv"),
    ("queues.0.dispatcher.rounds.schedule", "often", "schedule"),
    ("defaults.settings.target", "grpc://x", "target"),
    ("defaults.terminationGracePeriodSeconds", "long", "terminationGracePeriodSeconds"),
    ("hyperqueues", [{"name": "all", "shards": []}], "shards"),
    ("workloads", [{"name": "x", "program": "juggle"}], "program"),
    ("workloads", [{"name": "x", "program": "resync"}], "queue"),
    ("workloads", [WATCH | {"watches": [CONFIG | {"kind": "configmaps"}]}], "kind"),
    ("workloads", [WATCH | {"watches": [{"kind": "v1/ConfigMap"}]}], "resource"),
    ("workloads", [WATCH | {"settings": {"perTarget": 3}}], "perTarget"),
    ("workloads", [SCALER | {"watches": [CONFIG]}], "watches"),
    ("crds.whenMissing", "ignore", "whenMissing"),
    ("monitoring.serviceMonitor.interval", "often", "interval"),
    ("alerts.keysWaitFor", 300, "keysWaitFor"),
    ("alerts.attemptsFailShare", 50, "attemptsFailShare"),
    ("extraObjects", [7], "extraObjects"),
]

# What only the whole of the values shows.
CONTRADICTIONS: list[tuple[str, Any, str]] = [
    ("queues.0.dispatcher.settings", {}, "settings.callback, settings.target or settings.command"),
    ("queues.0.dispatcher.settings.callback", "a:b", "settings.callback, settings.target or settings.command"),
    ("queues.1", QUEUE, "names of queues, hyperqueues and workloads have to differ"),
    ("queues.0.store", {"type": "gcs"}, "store.gcs.bucket says where the queue is"),
    ("queues.0.store", {"type": "redis"}, "url or existingSecret.name says where Redis is"),
    ("queues.0.name", "a-name-that-is-too-long-for-kubernetes", "longer than 52 characters"),
    ("hyperqueues", [{"name": "all", "shards": ["nobody"]}], '"nobody" is none of queues'),
    ("workloads", [WATCH | {"watches": []}], "watches: it is empty"),
    ("workloads", [{"name": "x", "program": "resync", "queue": "nobody"}], '"nobody" is none of queues'),
    ("networkPolicy.enabled", True, "networkPolicy.egress: it is empty"),
    ("monitoring.rules.enabled", True, "monitoring.rules.enabled is on, but the cluster does not know PrometheusRule"),
]


def with_value(path: str, value: Any) -> Object:
    values = copy.deepcopy(VALUES)
    place: Any = values
    *folders, last = path.split(".")
    for folder in folders:
        place = place[int(folder)] if isinstance(place, list) else place.setdefault(folder, {})
    if isinstance(place, list):
        place.append(value)
    else:
        place[last] = value
    return values


@pytest.mark.parametrize(("path", "value", "named"), WRONG)
def test_a_wrong_value_is_refused_by_name(path: str, value: Any, named: str) -> None:
    with pytest.raises(HelmError) as refused:
        render(with_value(path, value))

    assert named in str(refused.value)


@pytest.mark.parametrize(("path", "value", "said"), CONTRADICTIONS)
def test_values_that_contradict_each_other_are_refused_in_one_line(path: str, value: Any, said: str) -> None:
    with pytest.raises(HelmError) as refused:
        render(with_value(path, value))

    assert said in str(refused.value)


@pytest.mark.parametrize("more", [{"replicas": 2}, {"hpa": {"enabled": True}}, {"keda": {"enabled": True}}])
def test_a_sqlite_queue_has_one_process(more: Object) -> None:
    values = values_of("sqlite")
    values["queues"][0]["dispatcher"] |= more

    with pytest.raises(HelmError, match="small-dispatcher: replicas: a queue in SQLite has one process"):
        render(values)


def test_a_sqlite_queue_has_nothing_beside_it_that_opens_its_file() -> None:
    values = values_of("sqlite") | {"workloads": [SCALER | {"queue": "small"}]}

    with pytest.raises(HelmError, match="a queue in SQLite has one process, so it has no scaler beside it"):
        render(values)


def test_one_thing_scales_a_workload() -> None:
    values = with_value(
        "queues.0.dispatcher", QUEUE["dispatcher"] | {"hpa": {"enabled": True}, "keda": {"enabled": True}}
    )

    with pytest.raises(HelmError, match=r"hpa\.enabled and keda\.enabled"):
        render(values)


@pytest.mark.parametrize("name", GENERATED)
def test_what_is_generated_is_what_is_committed(name: str) -> None:
    assert GENERATED[name].read_text(encoding="utf-8") == generated()[name]


def test_no_object_of_the_schema_takes_a_name_that_it_does_not_know() -> None:
    def open_objects(schema: Any, path: str) -> list[str]:
        if not isinstance(schema, dict):
            return []
        found = [path] if "properties" in schema and schema.get("additionalProperties") is not False else []
        return found + [it for key, value in schema.items() for it in open_objects(value, f"{path}.{key}")]

    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert open_objects(schema, "") == []
    assert schema["$defs"].keys() >= PROGRAMS.keys()
