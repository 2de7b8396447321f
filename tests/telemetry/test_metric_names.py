"""What names metrics outside the code: the documentation has every one, alerts and dashboards none that does not exist.

`python -m tests.telemetry.test_metric_names` writes the table of docs/metrics.md anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from workqueue.metric_table import METRICS, Metric

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs" / "metrics.md"
ALERTS = REPOSITORY / "deploy" / "prometheus" / "alerts.yaml"
SCOPE_LABELS = {
    "go": {"service_name", "revision_name", "queue_name"},
    "process": {"service_name", "revision_name"},
    "kubernetes": {"name"},
}
LABELS = {metric.name: SCOPE_LABELS[metric.scope] | set(metric.labels) | {"le"} for metric in METRICS}


def row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in (*sorted(SCOPE_LABELS[metric.scope]), *metric.labels))
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


def rows() -> list[str]:
    return [row(metric) for metric in METRICS]


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def queries() -> Iterator[str]:
    for rule in rules():
        yield rule["expr"]
    for path in sorted((REPOSITORY / "charts" / "workqueue" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            yield from (target["expr"] for target in panel.get("targets", ()))


def named(text: str) -> set[str]:
    """The metrics that a text names, without the suffixes of a histogram's series."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bworkqueue_\w+", text)}


def test_the_documentation_has_the_table_as_it_is() -> None:
    documented = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]

    assert documented == rows()


def test_no_metric_is_named_twice() -> None:
    assert len(LABELS) == len(METRICS)


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_reads_metrics_and_labels_that_exist(query: str) -> None:
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query))
    labels |= {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", query) for label in group.split(",")}

    assert named(query)
    assert named(query) <= LABELS.keys()
    assert labels <= set().union(*(LABELS[name] for name in named(query)))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert "queue_name" in rule["annotations"]["summary"]
    runbook = (REPOSITORY / rule["annotations"]["runbook_url"]).read_text(encoding="utf-8")
    assert runbook.startswith(f"# {rule['alert']}\n")
    assert "## What to do\n1. " in runbook
    assert named(runbook) <= LABELS.keys()


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(
        "".join([*text.partition("|---|---|---|---|\n")[:2], "\n".join(rows()), "\n"]), encoding="utf-8"
    )
