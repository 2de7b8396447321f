"""How a bug is planted for one test run: a few characters of a rule, a statement or a script are replaced."""

from __future__ import annotations

import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from pkgutil import walk_packages
from types import FunctionType
from typing import Any

from tests.support.backends import Backend
from workqueue import backends
from workqueue.backends.redis.scripts import script

OURS = ("workqueue", "dispatcher", "examples", "tests")

# What the rules and the places of each backend are written in; "all" is in front of every one. Where one backend is
# tested in several set-ups, such as a Redis and a Redis cluster, bugs are planted in one: the code is the same.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "memory": ("all", "python", "memory"),
    "sqlite": ("all", "python", "sqlite"),
    "redis": ("all", "lua", "redis"),
    "gcs": ("all", "python", "gcs"),
    "three-verbs": ("all", "python", "three-verbs"),
}


@dataclass(frozen=True)
class Edit:
    """Text replaced in one function or constant, `module:name` or `module:Class.name`, or in a script, `lua:name`.

    `lua:` alone is every script that has the text.
    """

    where: str
    old: str
    new: str


@dataclass(frozen=True)
class Bug:
    """A mistake somebody could make, and the scenario that must not let it pass.

    `edits` go by family; a backend with none of its families in there cannot have the bug.
    """

    name: str
    caught_by: str
    edits: Mapping[str, Sequence[Edit]]

    def edits_for(self, backend: Backend) -> list[Edit]:
        return [edit for family in FAMILIES.get(backend.name, ()) for edit in self.edits.get(family, ())]


@contextmanager
def planted(edits: Sequence[Edit]) -> Iterator[None]:
    """Run with `edits` made; each must fit exactly, so that a bug cannot fade away when the code changes."""
    _import_backends()
    with ExitStack() as restored:
        for where in dict.fromkeys(edit.where for edit in edits):
            changes = [(edit.old, edit.new) for edit in edits if edit.where == where]
            restored.callback(_plant_script(where, changes) if where.startswith("lua:") else _plant(where, changes))
        yield


def _import_backends() -> None:
    """One that was imported first while a bug is planted would keep it."""
    for module in walk_packages(backends.__path__, "workqueue.backends."):
        importlib.import_module(module.name)


def _changed(where: str, text: str, changes: Sequence[tuple[str, str]]) -> str:
    for old, new in changes:
        if text.count(old) != 1:
            raise AssertionError(f"{where} has {old!r} {text.count(old)} times; the bug must be planted anew")
        text = text.replace(old, new)
    return text


def _plant(where: str, changes: Sequence[tuple[str, str]]) -> Callable[[], None]:
    module_name, _, path = where.partition(":")
    owner: Any = importlib.import_module(module_name)
    *holders, name = path.split(".")
    for holder in holders:
        owner = getattr(owner, holder)
    original = vars(owner)[name]
    changed = (
        _changed(where, original, changes)
        if isinstance(original, str)
        else _rewritten(original, _changed(where, textwrap.dedent(inspect.getsource(original)), changes))
    )
    users = [owner] if holders else [owner, *_importers(name, original)]
    for user in users:
        setattr(user, name, changed)

    def restore() -> None:
        for user in users:
            setattr(user, name, original)

    return restore


def _importers(name: str, original: object) -> list[Any]:
    """The modules that imported it by name."""
    ours = [module for path, module in sys.modules.items() if path.split(".")[0] in OURS]
    return [module for module in ours if vars(module).get(name) is original]


def _rewritten(original: FunctionType, source: str) -> FunctionType:
    code = compile(source, f"<planted {original.__qualname__}>", "exec", annotations.compiler_flag)
    made: dict[str, FunctionType] = {}
    exec(code, original.__globals__, made)
    return made[original.__name__]


def _plant_script(where: str, changes: Sequence[tuple[str, str]]) -> Callable[[], None]:
    scripts = [script(name) for name in _script_names() if where in ("lua:", f"lua:{name}")]
    originals = [(each, each.text, each.sha) for each in scripts if changes[0][0] in each.text]
    if not originals:
        raise AssertionError(f"no script {where} has {changes[0][0]!r}; the bug must be planted anew")
    for each, text, _ in originals:
        each.text = _changed(where, text, changes)
        each.sha = sha1(each.text.encode(), usedforsecurity=False).hexdigest()

    def restore() -> None:
        for each, text, sha in originals:
            each.text, each.sha = text, sha

    return restore


def _script_names() -> list[str]:
    """The scripts by name; the parts that they share are no scripts."""
    folder = files("workqueue.backends.redis") / "lua"
    return [path.name.removesuffix(".lua") for path in folder.iterdir() if path.name.endswith(".lua")]
