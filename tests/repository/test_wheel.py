"""The wheel alone, in an environment with nothing else: what works in it, and what says which extra it needs."""

from __future__ import annotations

import re
import sys
import tomllib
import venv
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from tests.support.processes import REPOSITORY, Ended, ran
from workqueue.extras import EXTRAS

MOST_BYTES = 2_310_000

WHOLE_LIFE = """
import asyncio, dispatcher
from workqueue import KeyNotFoundError, open_queue

async def main(url):
    seen = []
    async with open_queue(url) as queue:
        await queue.queue("a")
        await dispatcher.handle(queue, callback=lambda key, attempt: seen.append(key), concurrency=1)
        try:
            await queue.get("a")
        except KeyNotFoundError:
            print(*seen, "settled")

asyncio.run(main({url!r}))
"""

NEEDS = [
    ("from workqueue import open_queue; open_queue('redis://h/0')", "redis"),
    ("from workqueue import open_queue; open_queue('gs://bucket')", "gcs"),
    ("import workqueue.rpc", "grpc"),
    ("import workqueue.sources.cloudevents", "events"),
    ("import workqueue.sources.schedules", "schedules"),
    ("import workqueue.sources.sqs", "sqs"),
    ("import asyncio; from workqueue.sources.kubernetes import API; asyncio.run(API.connect())", "kubernetes"),
    ("import workqueue.routing.messages", "routing"),
    ("import workqueue.access.oidc", "oidc"),
    ("import workqueue.access.google_identity", "oidc"),
    ("import workqueue.web", "http"),
    ("from workqueue.extras import require; require('console', 'the console')", "console"),
    ("import workqueue.telemetry.exposition", "metrics"),
    ("from dispatcher import handler", "http"),
    ("from dispatcher import Controller", "http"),
    ("from dispatcher import service_callback", "grpc"),
    ("from dispatcher import http_callback; http_callback('http://h')", "events"),
    ("from dispatcher import CloudEventErrors; CloudEventErrors('http://h', 'q')", "events"),
    ("import dispatcher.process", "serve"),
    ("import dispatcher.relay.process", "serve"),
]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment into which pip, without any index to fetch from, installed the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = WheelBuilder(str(REPOSITORY)).build(directory=str(folder))
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-compile", wheel]
    assert ran(pip).code == 0
    return folder / "venv"


def run(bare: Path, *command: str, complains: bool = False) -> Ended:
    program = [str(bare / "bin" / command[0]), *command[1:]]
    return ran(program, cwd=bare, env={"PYTHONPATH": None}, complains=complains)


def test_the_wheel_brings_no_other_distribution_and_is_small(bare: Path) -> None:
    (packages,) = bare.glob("lib/python*/site-packages")
    found = [path.name for path in packages.glob("*.dist-info")]
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc")

    assert len(found) == 1, found
    assert found[0].startswith("workqueue_dispatcher-")
    assert size <= MOST_BYTES


@pytest.mark.parametrize("url", ["memory://", "sqlite:///wq.db"])
def test_without_extras_a_key_is_enqueued_reconciled_and_settled(bare: Path, url: str) -> None:
    ended = run(bare, "python", "-c", WHOLE_LIFE.replace("{url!r}", repr(url)))

    assert (ended.out, ended.err) == ("a settled\n", "")


@pytest.mark.parametrize(("program", "extra"), NEEDS, ids=[program for program, _ in NEEDS])
def test_a_feature_without_its_extra_says_in_one_line_what_to_install(bare: Path, program: str, extra: str) -> None:
    ended = run(bare, "python", "-c", program, complains=True)

    said = ended.err.splitlines()[-1]
    assert said.startswith("workqueue.errors.MissingExtraError: ")
    assert said.endswith(f"which is not installed: pip install 'workqueue-dispatcher[{extra}]'")


@pytest.mark.parametrize("program", ["workqueue", "dispatcher"])
def test_a_command_line_without_its_extra_prints_one_line_and_exits_2(bare: Path, program: str) -> None:
    ended = run(bare, program, "--help")

    assert ended.code == 2
    assert re.fullmatch(rf"{program}: .* is not installed: pip install 'workqueue-dispatcher\[cli\]'\n", ended.err)


def test_the_modules_that_features_ask_for_are_those_that_each_extra_brings() -> None:
    extras: dict[str, list[str]] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    providers = packages_distributions()
    for extra, modules in EXTRAS.items():
        declared = {re.split(r"[\[<>=;~ ]", line)[0].lower() for line in extras[extra]}
        if "workqueue-dispatcher" in declared:
            continue
        for module in modules:
            names = {name.lower().replace("_", "-") for name in providers[module.split(".")[0]]}
            assert names & declared, f"[{extra}] does not bring {module}"
