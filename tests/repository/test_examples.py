"""The examples run, as their reader would run them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start_manifests(workspace: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.manifests", "--workspace", str(workspace)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.timeout(180)
def test_the_main_example_ends_by_itself_and_every_key_as_its_manifest_deserves(tmp_path: Path) -> None:
    process = start_manifests(tmp_path / "work")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "10 done" in output
    assert "1 dead-lettered: failed 3 times, kept for an operator: broken" in output
    assert "1 dropped: cannot succeed, so it was not tried again: malformed" in output
    assert "2 of slow" in output, "edited once while it ran and enqueued twice: one more run"
    assert (tmp_path / "work/actual/slow/index.html").read_text() == "<h1>slow, second edition</h1>\n"
    assert sorted(path.name for path in (tmp_path / "work/actual/rollout").glob("replica-*")) == [
        "replica-1",
        "replica-2",
        "replica-3",
    ]


@pytest.mark.timeout(180)
def test_the_main_example_goes_on_where_kill_9_left_it(tmp_path: Path) -> None:
    process = start_manifests(tmp_path / "work")
    assert process.stdout is not None
    for line in process.stdout:
        if "slow" in line and "in progress" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    second = start_manifests(tmp_path / "work")
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    assert "The last run did not end by itself" in output
    assert "recovered from the process that was killed" in output
    assert "10 done" in output


def test_a_producer_in_the_background_loses_no_key() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.background_enqueuer"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused at once: ")
    assert "put 10000, " in done.stdout
    assert done.stdout.endswith(", failed 0\nin the queue: 100 keys\n")


def test_schedules_tick_and_say_when_they_fire_next() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.schedules"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("heartbeat fires next at ")
    assert "\nnightly fires next at " in done.stdout
    assert done.stdout.count("heart: the tick of ") >= 3
