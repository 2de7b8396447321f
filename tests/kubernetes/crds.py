"""For the Kubernetes room: other projects' definitions of their kinds, as they publish them in their Go modules.

`python -m tests.kubernetes.crds` downloads them ahead of the tests, whose network leads nowhere.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.kubernetes.node.api import Object

__all__ = ["definitions"]

_MODULE = Path(__file__).parent / "definitions"
_FILES = {
    "github.com/kedacore/keda/v2": ["config/crd/bases/keda.sh_scaledobjects.yaml"],
    "github.com/prometheus-operator/prometheus-operator": [
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ],
    "knative.dev/serving": ["config/core/300-resources/service.yaml"],
}


def definitions() -> list[Object]:
    """The CustomResourceDefinition of each kind of another project that the chart or the docs use.

    Raises:
        RuntimeError: there is no Go, or it cannot download them; its output says why.
    """
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in _paths()]


def _paths() -> list[Path]:
    go = shutil.which("go")
    if go is None:
        raise RuntimeError("other projects publish their definitions in Go modules: Go has to be on the PATH")
    done = subprocess.run([go, "mod", "download", "-json"], cwd=_MODULE, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"go mod download ended with {done.returncode}: {done.stdout}")
    modules = json.loads("[" + done.stdout.replace("}\n{", "},{") + "]")  # Go writes one object after another
    return [Path(module["Dir"], name) for module in modules for name in _FILES[module["Path"]]]


if __name__ == "__main__":
    for it in definitions():
        print(it["metadata"]["name"])
