"""Carries out a Dockerfile's steps without an engine: in folders of this machine, each step as a container of our own.

Base images are what this machine has: its system folders and the Python that runs the tests, read-only. Everything that
the steps write lands in the stage's folder. It needs Linux and root, for mount namespaces.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kubernetes.node.images import ETC
from tests.support.processes import ran

__all__ = ["Stage", "built", "started", "steps"]

_LAUNCHER = Path(__file__).resolve().parents[1] / "kubernetes" / "node" / "container.py"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
_SAID = ("ARG", "CMD", "EXPOSE", "LABEL", "STOPSIGNAL")  # for who runs the image: no step
_NAMED = "named"  # a folder in which Python is called `python`, as in the image: Debian has `python3` alone
# How this machine reaches its package index is no part of the image.
_INDEX = ("PIP_INDEX_URL", "PIP_CERT", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy")


@dataclass
class Stage:
    """One stage: its files, and what its containers start with."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": f"{sys.base_prefix}/bin:/{_NAMED}:/usr/bin:/bin"})
    workdir: str = "/"
    user: int = 0
    entrypoint: list[str] = field(default_factory=list)


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Each instruction of a Dockerfile with its arguments."""
    joined = re.sub(r"\\\n", "", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    for line in filter(None, map(str.strip, joined.splitlines())):
        instruction, _, arguments = line.partition(" ")
        yield instruction, arguments.strip()


def built(dockerfile: Path, context: Path, folder: Path) -> Stage:
    """The last stage, once every step has been carried out."""
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for instruction, arguments in steps(dockerfile.read_text(encoding="utf-8")):
        if instruction == "FROM":
            _, _, name = arguments.partition(" AS ")
            stage = stages[name or "last"] = Stage(folder / (name or "last"))
            for name in ("tmp", _NAMED):
                (stage.root / name).mkdir(parents=True)
            (stage.root / _NAMED / "python").symlink_to(f"{sys.base_prefix}/bin/python3")
        else:
            _carry_out(instruction, arguments, stage, stages, context)
    return stage


def _carry_out(instruction: str, arguments: str, stage: Stage, stages: Mapping[str, Stage], context: Path) -> None:
    match instruction:
        case "WORKDIR":
            stage.workdir = arguments
            (stage.root / arguments.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "COPY":
            source, paths = _copied(arguments, stages, context)
            _copy(source, paths[:-1], stage.root / os.path.join(stage.workdir, paths[-1]).lstrip("/"))
        case "RUN":
            (stage.root / "opt").mkdir(exist_ok=True)
            done = ran(started(stage, ["sh", "-c", arguments], user=0), timeout=1200)
            assert done.code == 0, f"{arguments}: {done.out[-2000:]}{done.err[-2000:]}"
        case "ENV":
            for pair in shlex.split(arguments):
                name, _, value = pair.partition("=")
                stage.env[name] = re.sub(r"\$\{(\w+)\}", lambda found: stage.env.get(found[1], ""), value)
        case "USER":
            stage.user = int(arguments.partition(":")[0])
        case "ENTRYPOINT":
            stage.entrypoint = json.loads(arguments)
        case _:
            assert instruction in _SAID, f"{instruction}: nobody here knows how to carry it out"


def _copied(arguments: str, stages: Mapping[str, Stage], context: Path) -> tuple[Path, list[str]]:
    first, *rest = arguments.split()
    if first.startswith("--from="):
        return stages[first.removeprefix("--from=")].root, rest
    return context, [first, *rest]


def _copy(source: Path, paths: Sequence[str], target: Path) -> None:
    for path in paths:
        found = source / path.lstrip("/")
        if found.is_dir():  # the folder's contents, as COPY has it
            shutil.copytree(
                found, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, target)


def started(
    stage: Stage, command: Sequence[str], *, user: int | None = None, mounts: Mapping[str, Path] | None = None
) -> list[str]:
    """The command line that runs `command` in a stage: as its user, or root, who may write."""
    root = user == 0
    spec: dict[str, Any] = {
        "image": [*_SYSTEM, sys.base_prefix],
        "etc": ETC | {name: _text(f"/etc/{name}") for name in ("nsswitch.conf", "resolv.conf", "pip.conf")},
        "hosts": str(_hosts(stage)),
        "root": str(stage.root.with_suffix(".root")),
        "pid_file": str(stage.root.with_suffix(".pid")),
        "network": "",
        "hostname": "image",
        "command": ["sh", "-c", f'cd {stage.workdir} && exec "$@"', "sh", *command],
        "env": stage.env | {name: os.environ[name] for name in _INDEX if root and name in os.environ},
        "mounts": [
            {"source": "/etc/ssl", "path": "/etc/ssl", "read_only": True},
            *(
                {"source": str(it), "path": f"/{it.name}", "read_only": not root}
                for it in stage.root.iterdir()
                if it.name != "tmp"
            ),
            {"source": str(stage.root / "tmp"), "path": "/tmp", "read_only": False},
            *({"source": str(it), "path": path, "read_only": False} for path, it in (mounts or {}).items()),
        ],
        "user": stage.user if user is None else user,
        "group": stage.user if user is None else user,
        "read_only_root": True,
        "drop_all": not root,
    }
    (stage.root / "tmp").chmod(0o1777)
    file = stage.root.with_suffix(".json")
    file.write_text(json.dumps(spec), encoding="utf-8")
    return [sys.executable, "-I", "-S", str(_LAUNCHER), str(file)]


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""


def _hosts(stage: Stage) -> Path:
    folder = stage.root.with_suffix(".hosts")
    folder.mkdir(exist_ok=True)
    (folder / "hosts").write_text(_text("/etc/hosts"), encoding="utf-8")
    return folder
