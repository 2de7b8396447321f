"""The reconciler of this example: makes the folder `actual/NAME` what the manifest `desired/NAME.json` says.

It is level-based: it looks at both sides, changes only what differs, and may be run any number of times. It never asks
what happened.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

from dispatcher import Attempt
from workqueue import NonRetriableError, Outcome, RequeueAfter

WORKSPACE = Path("build/manifests")
_PAUSE_BETWEEN_REPLICAS = timedelta(seconds=1)


class Reconciler:
    """A callback for one workspace: `workspace/desired/*.json` in, `workspace/actual/*/` out."""

    def __init__(self, workspace: Path) -> None:
        self.desired = workspace / "desired"
        self.actual = workspace / "actual"

    async def __call__(self, key: str, attempt: Attempt) -> Outcome | None:
        """Make `actual/key` what the manifest says; asks to be called again while a rollout goes on."""
        manifest = self._read(key)
        await asyncio.sleep(manifest.get("takes_seconds", 0.2))  # what a real one would spend on calls to others
        replicas = manifest.get("replicas", 0)
        done = sum(1 for _ in (self.actual / key).glob("replica-*"))
        grown = min(done + 1, replicas)
        self._write(key, wanted_files(manifest, self.desired, grown))
        return RequeueAfter(_PAUSE_BETWEEN_REPLICAS) if grown < replicas else None

    def matches(self, key: str) -> bool:
        """Whether `actual/key` is what the manifest says, down to the last byte."""
        manifest = self._read(key)
        wanted = wanted_files(manifest, self.desired, manifest.get("replicas", 0))
        return found_files(self.actual / key) == wanted

    def _read(self, key: str) -> dict[str, Any]:
        path = self.desired / f"{key}.json"
        try:
            manifest: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {"files": {}}  # the manifest was removed: nothing is desired, so nothing is left
        except json.JSONDecodeError as error:
            # Trying again cannot mend it; somebody has to edit the file, and that edit will enqueue the key.
            raise NonRetriableError(f"{path.name} is not JSON: {error}") from error
        return manifest

    def _write(self, key: str, wanted: dict[str, bytes]) -> None:
        folder = self.actual / key
        found = found_files(folder)
        for name in found.keys() - wanted.keys():
            (folder / name).unlink()
        for name, content in wanted.items():
            if found.get(name) != content:
                _replace(folder / name, content)
        if not wanted:
            shutil.rmtree(folder, ignore_errors=True)


def wanted_files(manifest: dict[str, Any], source: Path, replicas: int) -> dict[str, bytes]:
    """Name and content of every file that the manifest asks for, with N replicas."""
    files = {name: text.encode() for name, text in manifest.get("files", {}).items()}
    files |= {name: (source / path).read_bytes() for name, path in manifest.get("copy", {}).items()}
    return files | {f"replica-{number}": b"running\n" for number in range(1, replicas + 1)}


def found_files(folder: Path) -> dict[str, bytes]:
    """Name and content of every file in `folder`."""
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")} if folder.is_dir() else {}


def _replace(path: Path, content: bytes) -> None:
    """Write through a temporary name, so that a kill -9 never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_bytes(content)
    unfinished.replace(path)


reconcile = Reconciler(WORKSPACE)
"""What `dispatcher serve --callback examples.manifests.reconcile:reconcile` calls."""
