"""What the shape of the code promises: every file says what it is, says what it exports, and importing it is cheap."""

from __future__ import annotations

import ast
import importlib
import tomllib
from functools import cache
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY, python

MODULES = [
    path.relative_to(REPOSITORY)
    for package in ("workqueue", "dispatcher")
    for path in sorted((REPOSITORY / package).rglob("*.py"))
    if "_pb2" not in path.name
]
# A command or a scenario is found by its registration, not by its name.
REGISTERING = [
    path for path in MODULES if path.name in ("app.py", "cli.py") or path.parts[:2] == ("workqueue", "conformance")
]
EXPORTING = [path for path in MODULES if path not in REGISTERING]
HEAVY = ["aiohttp", "gcloud", "grpc", "jwt", "kubernetes_asyncio", "msgspec", "redis", "starlette", "typer", "uvicorn"]


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse((REPOSITORY / path).read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def exported(tree: ast.Module) -> list[str]:
    """The names in `__all__`, in its order; none when there is no `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and "__all__" in assigned(node) and node.value is not None:
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def defined(tree: ast.Module) -> set[str]:
    """The public classes, functions, constants and type aliases at the top of a module."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            # A lower-case variable, such as a module's logger, is nobody else's.
            names.update(name for name in assigned(node) if name[0].isupper())
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_starts_by_saying_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(syntax(path)) or ""

    assert docstring.partition("\n")[0].strip()


@pytest.mark.parametrize("path", EXPORTING, ids=str)
def test_every_public_name_is_exported(path: Path) -> None:
    tree = syntax(path)

    assert defined(tree) - set(exported(tree)) == set()


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_exported_name_exists_once(path: Path) -> None:
    names = exported(syntax(path))
    module = importlib.import_module(module_name(path))

    assert [name for name in names if not hasattr(module, name)] == []
    assert len(names) == len(set(names))


def test_importing_workqueue_imports_no_driver_server_or_cli() -> None:
    program = "import json, sys, workqueue; print(json.dumps(sorted(sys.modules)))"

    answer = python("-c", program)

    assert set(answer.json) & set(HEAVY) == set()


def test_the_rule_that_the_vocabulary_knows_no_room_covers_all_of_it() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {contract["name"]: contract for contract in settings["tool"]["importlinter"]["contracts"]}
    rule = contracts["The vocabulary knows none of the rooms"]

    inside = {module_name(path): path for path in MODULES if path.parts[0] == "workqueue"}
    files = {name for name, path in inside.items() if len(path.parts) == 2 and path.stem != "__init__"}
    rooms = {name for name, path in inside.items() if len(path.parts) == 3 and path.stem == "__init__"}

    assert set(rule["source_modules"]) == files
    assert set(rule["forbidden_modules"]) == rooms
