"""For the Kubernetes room: etcd, kube-apiserver and kube-controller-manager, built once from their Go modules.

Some 19 minutes of CPU the first time; then a folder in the user's cache, named by what was built, is used again.
`python -m tests.kubernetes.binaries` builds them ahead of the tests.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["RELEASE", "binaries"]

RELEASE = "v1.37.2"
_MODULE = Path(__file__).parent / "cluster"
_VERSION = "k8s.io/component-base/version"
_QUICKLY = "all=-l -dwarf=false"
"""Without inlining and without what a debugger wants: the compiler then takes two thirds of the time."""


def binaries() -> Path:
    """The folder with the programs, which are built if they are not there yet.

    Raises:
        RuntimeError: there is no Go, or the build failed.
    """
    folder = _folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _build(folder)
    return folder


def _folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    what = hashlib.sha256(b"".join((_MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))).hexdigest()[:12]
    return cache / "workqueue-tests" / f"kubernetes-{RELEASE}-{what}"


def _build(folder: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise RuntimeError("the Kubernetes room builds an API server: it needs Go 1.26 or later on the PATH")
    print(
        f"building etcd and Kubernetes {RELEASE} into {folder}: some 19 minutes of CPU, once",
        file=sys.stderr,
        flush=True,
    )
    building = folder.with_suffix(".building")
    shutil.rmtree(building, ignore_errors=True)
    major, minor, _ = RELEASE.removeprefix("v").split(".")
    stamps = {"gitVersion": RELEASE, "gitMajor": major, "gitMinor": minor}
    linked = " ".join(["-s -w", *(f"-X {_VERSION}.{name}={value}" for name, value in stamps.items())])
    command = [go, "build", "-trimpath", "-o", f"{building}/", "-gcflags", _QUICKLY, "-ldflags", linked, "tool"]
    built = subprocess.run(command, cwd=_MODULE, env=os.environ | {"CGO_ENABLED": "0"}, check=False)
    if built.returncode:
        raise RuntimeError(f"go build ended with {built.returncode}; its output is above")
    building.rename(folder)


if __name__ == "__main__":
    print(binaries())
