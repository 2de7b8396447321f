"""README.md of the chart: a table of every value, read from the comments in values.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

__all__ = ["readme"]

_LINE = re.compile(r"^( *)([\w.-]+):(?: (.*))?$")

_HEAD = """\
# The workqueue chart

Receivers, dispatchers, metrics, alerts and dashboards for any number of queues, from one list. docs/deploy.md has the
way from nothing to a queue that runs; the table below is generated from values.yaml.

```console
$ helm install builds charts/workqueue --values my-values.yaml
$ helm test builds --logs
```

`ci/` has a file of values for each way to run it; every one of them is rendered and checked by the tests.

| value | default | what |
|---|---|---|
"""


def readme(values_yaml: Path) -> str:
    """The text of README.md for the chart with these values."""
    text = values_yaml.read_text(encoding="utf-8")
    defaults = yaml.safe_load(text)
    rows = (f"| `{path}` | {_shown(defaults, path)} | {said} |" for path, said in _documented(text))
    return _HEAD + "\n".join(rows) + "\n"


def _documented(text: str) -> Iterator[tuple[str, str]]:
    """Each key with what the comment above it says, from top to bottom."""
    path: list[str] = []
    said: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            said.append(line.strip().removeprefix("#").strip().removeprefix("-- "))
        elif found := _LINE.match(line):
            depth = len(found[1]) // 2
            path = [*path[:depth], found[2]]
            if said or found[3]:
                yield ".".join(path), " ".join(said).replace("|", "\\|")
            said = []
        else:
            said = []


def _shown(values: Any, path: str) -> str:
    for name in path.split("."):
        values = values[name]
    if isinstance(values, dict) and values and len(str(values)) > 60:
        return ""
    shown = str(values).lower() if isinstance(values, bool) else str(values)
    return f"`{shown}`" if values != "" else '`""`'
