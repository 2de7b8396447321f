"""`dispatcher serve --reload`: a change of the callback's code takes effect, and no key is lost or spent for it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY, Process, started
from tests.support.programs import dispatcher, workqueue

CODE = """
from pathlib import Path

async def reconcile(key, attempt):
    with Path("seen").open("a") as file:
        file.write(f"{VERSION} {{key}} {{attempt.attempts}}\\n")
"""
BROKEN = "this is no Python ("


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").touch()
    write(tmp_path, "first")
    return tmp_path


def write(folder: Path, version: str) -> None:
    code = BROKEN if version == BROKEN else CODE.replace("{VERSION}", version).replace("{{", "{").replace("}}", "}")
    (folder / "mine/reconciler.py").write_text(code, encoding="utf-8")


@contextmanager
def reloading(folder: Path, *, complains: bool = False) -> Iterator[Process]:
    command = [sys.executable, "-m", "dispatcher.cli", "serve", "--reload", "--callback", "mine.reconciler:reconcile"]
    ports = ["--grpc-port", "0", "--http-port", "0", "--log-level", "debug"]
    env = {"PYTHONPATH": str(REPOSITORY), "WORKQUEUE_URL": f"sqlite:///{folder}/q.db", "PYTHONDONTWRITEBYTECODE": "1"}
    with started([*command, *ports], env=env, cwd=folder, complains=complains) as process:
        process.logged("dispatching")
        yield process
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def enqueue(folder: Path, key: str) -> None:
    assert workqueue("enqueue", key, "--queue", f"sqlite:///{folder}/q.db").code == 0


def test_a_change_drains_the_dispatcher_and_the_next_one_runs_the_new_code(folder: Path) -> None:
    with reloading(folder) as it:
        write(folder, "second")
        said = it.logged("changed")
        it.logged("stopped")
        it.logged("dispatching")
        enqueue(folder, "after")
        it.logged("key 'after' completed")
        it.send_signal(signal.SIGINT)
        code = it.wait(timeout=60)

    assert "mine/reconciler.py changed: draining, then starting again" in said
    assert code == 0
    assert (folder / "seen").read_text() == "second after 1\n"


def test_code_that_cannot_be_imported_waits_for_the_next_change(folder: Path) -> None:
    with reloading(folder, complains=True) as it:
        write(folder, BROKEN)
        it.logged("SyntaxError")
        write(folder, "mended")
        it.logged("dispatching")


def test_a_signal_ends_both_processes_with_the_exit_code_of_the_dispatcher(folder: Path) -> None:
    with reloading(folder) as it:
        it.send_signal(signal.SIGTERM)
        it.logged("stopped")
        assert it.wait(timeout=60) == 0


@pytest.mark.parametrize(
    "what", [["--command", "true"], ["--callback", "http://127.0.0.1/x"], ["--target", "grpc://a:1"]]
)
def test_what_has_no_python_code_to_watch_cannot_be_reloaded(what: list[str]) -> None:
    ended = dispatcher("serve", "--reload", *what)

    assert (ended.code, ended.out) == (2, "")
    assert "--reload watches a function of yours" in ended.err


def test_a_package_that_is_not_there_is_said_in_one_line() -> None:
    ended = dispatcher("serve", "--reload", "--callback", "no_such_package.x:y")

    assert ended.code == 2
    assert "there is no module 'no_such_package'" in ended.err


def test_a_queue_in_memory_would_be_lost_at_each_change() -> None:
    ended = dispatcher("serve", "--reload", "--queue", "memory://", "--callback", "tests.support.reconcilers:complete")

    assert (ended.code, ended.out) == (2, "")
    assert "--reload would lose a queue of memory://" in ended.err
