"""The examples for FastAPI and Django, with their own servers: what was asked for over HTTP is reconciled."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.support.eventually import eventually
from tests.support.processes import REPOSITORY, python, started

ORDERS = ("uvicorn", "--log-level", "warning", "examples.web.orders:app", "--uds", "web")
SHOP = (
    "gunicorn",
    "--preload",
    "--workers",
    "2",
    "--no-control-socket",
    "examples.web.shop.wsgi",
    "--bind",
    "unix:web",
)
MYPY = """
[mypy]
strict = true
explicit_package_bases = true
plugins = mypy_django_plugin.main
[mypy.plugins.django-stubs]
django_settings_module = examples.web.shop.settings
"""


class Local(HTTPConnection):
    """A connection to a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


@contextmanager
def served(folder: Path, *server: str) -> Iterator[None]:
    environment = {"PYTHONPATH": str(REPOSITORY)}
    with started([sys.executable, "-m", *server], cwd=folder, env=environment, out=False):
        eventually("the server listens", lambda: (folder / "web").exists())
        yield


def asked(folder: Path, method: str, path: str, body: str = "", kind: str = "application/json") -> tuple[int, Any]:
    connection = Local(folder / "web")
    connection.request(method, path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    try:
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def dispatched(folder: Path, callback: str) -> list[str]:
    """What the reconciler printed in one round of `dispatcher run`, on the queue of the examples."""
    once = ["-m", "dispatcher.cli", "run", "--once", "--callback", callback]
    ended = python(*once, cwd=folder, env={"PYTHONPATH": str(REPOSITORY)})
    assert ended.code == 0, ended.err
    return sorted(ended.out.splitlines())


def test_what_fastapi_was_asked_for_is_reconciled(tmp_path: Path) -> None:
    with served(tmp_path, *ORDERS):
        for number, item in enumerate(("tea", "nothing")):
            assert asked(tmp_path, "PUT", f"/orders/{number}", json.dumps({"item": item}))[0] == 202
        before = asked(tmp_path, "GET", "/orders/0")[1]
        made = dispatched(tmp_path, "examples.web.orders:reconcile")
        after = asked(tmp_path, "GET", "/orders/0")[0]

    assert (before["status"], before["payload"], before["meta"]) == ("queued", "tea", {})
    assert made == ["order/0: tea"]
    assert after == 404


def test_what_django_committed_is_reconciled_and_what_it_rolled_back_is_not(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(REPOSITORY), "DJANGO_SETTINGS_MODULE": "examples.web.shop.settings"}
    assert python("-m", "django", "migrate", "--verbosity", "0", cwd=tmp_path, env=environment).code == 0
    assert not (tmp_path / "workqueue.db").exists()

    with served(tmp_path, *SHOP):
        form = "application/x-www-form-urlencoded"
        codes = [asked(tmp_path, "POST", "/customers", f"name={name}", form)[0] for name in ("Ann", "nobody", "Bob")]

    assert codes == [201, 400, 201]
    assert dispatched(tmp_path, "examples.web.shop.reconcile:reconcile") == ["welcome, Ann", "welcome, Bob"]


def test_the_examples_are_typed(tmp_path: Path) -> None:
    settings = tmp_path / "mypy.ini"
    settings.write_text(MYPY)

    ended = python("-m", "mypy", "--config-file", settings, "examples/web")

    assert ended.code == 0, ended.out
