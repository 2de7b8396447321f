"""deploy/Dockerfile: its very steps are carried out, and its entrypoints run as its user on a read-only root."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from tests.deploy.dockerfile import Stage, built, started, steps
from tests.support import processes
from tests.support.processes import Ended, ran

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = REPOSITORY / "deploy" / "Dockerfile"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return built(DOCKERFILE, REPOSITORY, tmp_path_factory.mktemp("image"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def run(image: Stage, *command: str, data: Path | None = None) -> Ended:
    mounts = {"/data": data} if data else {}
    return ran(started(image, command, mounts=mounts))


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.prefix) / "bin" / "hadolint"
    done = ran([hadolint, "--failure-threshold", "style", DOCKERFILE])

    assert (done.code, done.out) == (0, "")


def test_the_image_says_what_it_is_and_runs_as_nobody_in_particular() -> None:
    written = dict(steps(DOCKERFILE.read_text(encoding="utf-8")))

    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", written["USER"])
    assert written["ENTRYPOINT"] == '["dispatcher"]'
    assert {"title", "description", "licenses", "version", "revision"} <= set(
        re.findall(r"opencontainers\.image\.(\w+)=", written["LABEL"])
    )


@pytest.mark.timeout(1200)
def test_both_programs_run_as_the_images_user_on_a_read_only_root(image: Stage, data: Path) -> None:
    assert run(image, *image.entrypoint, "--version").out == run(image, "workqueue", "--version").out != ""
    assert run(image, "sh", "-c", "id -u; touch /opt/x || touch /x || echo refused").out == "65532\nrefused\n"

    enqueued = run(image, "workqueue", "enqueue", "key", "--queue", "sqlite:////data/queue.db", data=data)

    assert (enqueued.code, enqueued.out) == (0, "enqueued 1\n")


@pytest.mark.timeout(1200)
def test_the_image_has_time_zones_of_its_own(image: Stage) -> None:
    asked = "import zoneinfo; zoneinfo.reset_tzpath([]); print(zoneinfo.ZoneInfo('Europe/Berlin'))"

    assert run(image, "python", "-c", asked).out == "Europe/Berlin\n"


@pytest.mark.timeout(1200)
def test_every_extra_is_in_the_image(image: Stage) -> None:
    done = run(image, "python", "-c", "import redis, gcloud.aio.auth, kubernetes_asyncio, jwt, opentelemetry, msgspec")

    assert done.code == 0, done.err


@pytest.mark.timeout(1200)
def test_process_1_gets_the_signal_itself_and_drains(image: Stage, data: Path) -> None:
    command = [
        *image.entrypoint,
        "serve",
        "--queue",
        "sqlite:////data/queue.db",
        "--command",
        "cat",
        "--grpc-port",
        "0",
        "--http-port",
        "0",
    ]
    with processes.started(started(image, command, mounts={"/data": data}), out=False) as process:
        process.logged("listening on")
        pid = int(image.root.with_suffix(".pid").read_text(encoding="ascii"))
        assert ran(["kill", f"-{signal.SIGTERM.value}", str(pid)]).code == 0
        assert process.wait(timeout=60) == 0
