"""The alerting rules with the default thresholds in them, as the chart fills them in; no Helm is needed for that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["rules"]


def rules(chart: Path, thresholds: Mapping[str, Any] | None = None) -> str:
    """files/alerts.yaml of a chart with its thresholds, or others by name, in place of what stands in <>."""
    values: dict[str, Any] = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))["alerts"]
    values |= thresholds or {}
    text = (chart / "files" / "alerts.yaml").read_text(encoding="utf-8")
    return re.sub(r"<(\w+)>", lambda found: str(values[found[1]]), text)
