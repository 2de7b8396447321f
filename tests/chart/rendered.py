"""For the chart's tests: what Helm's own engine renders, as objects."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

__all__ = ["CHART", "CI", "Object", "containers", "find", "pods", "render", "render_ci", "values_of"]

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "workqueue"
CI = sorted(path.stem.removesuffix("-values") for path in (CHART / "ci").glob("*-values.yaml"))

Object = dict[str, Any]


@cache
def chart() -> Chart:
    return Chart.load(CHART)


def values_of(name: str) -> Object:
    """The values of ci/NAME-values.yaml."""
    found: Object = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text(encoding="utf-8"))
    return found


def render(values: Mapping[str, Any], namespace: str = "team") -> list[Object]:
    """Every object of a release called `release` in a namespace."""
    files = chart().render(dict(values), name="release", namespace=namespace)
    texts = (text for path, text in sorted(files.items()) if path.endswith(".yaml"))
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


@cache
def _rendered_ci(name: str) -> list[Object]:
    return render(values_of(name))


def render_ci(name: str) -> list[Object]:
    """Every object that ci/NAME-values.yaml makes; a copy of your own."""
    return copy.deepcopy(_rendered_ci(name))


def find(objects: list[Object], kind: str, name: str = "") -> Object:
    """The one object of a kind, or of that kind and name."""
    [found] = [it for it in objects if it["kind"] == kind and it["metadata"]["name"].endswith(name)]
    return found


def pods(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Each object that makes Pods, and the spec of its Pods."""
    for it in objects:
        if it["kind"] == "Pod":
            yield it, it["spec"]
        elif it["kind"] in ("Deployment", "Job"):
            yield it, it["spec"]["template"]["spec"]
        elif it["kind"] == "CronJob":
            yield it, it["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def containers(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Each object that makes Pods with each of its containers."""
    for it, spec in pods(objects):
        for container in spec["containers"]:
            yield it, container
