"""Write what is generated: the chart's values.schema.json and README.md, and deploy/prometheus/alerts.yaml."""

from __future__ import annotations

import json
from pathlib import Path

from charts.alerts import rules
from charts.readme import readme
from charts.schema import schema

__all__ = ["GENERATED", "generated"]

_REPOSITORY = Path(__file__).resolve().parent.parent
_CHART = _REPOSITORY / "charts" / "workqueue"
_ALERTS = """\
# Alerting rules for Prometheus: page when keys wait, ticket when keys or events are given up. Generated from
# charts/workqueue/files/alerts.yaml and the thresholds in the chart's values: change them there, then `make charts`.
"""

GENERATED = {
    "schema": _CHART / "values.schema.json",
    "readme": _CHART / "README.md",
    "alerts": _REPOSITORY / "deploy" / "prometheus" / "alerts.yaml",
}


def generated() -> dict[str, str]:
    """What each file of `GENERATED` should hold."""
    return {
        "schema": json.dumps(schema(), indent=1, ensure_ascii=False) + "\n",
        "readme": readme(_CHART / "values.yaml"),
        "alerts": _ALERTS + rules(_CHART),
    }


if __name__ == "__main__":
    for name, text in generated().items():
        GENERATED[name].write_text(text, encoding="utf-8")
