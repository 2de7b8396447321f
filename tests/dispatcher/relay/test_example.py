"""The example runs, as its reader would run it."""

from __future__ import annotations

import subprocess
import sys

from tests.support.programs import REPOSITORY


def test_every_order_of_the_example_arrives() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.relay"], cwd=REPOSITORY, capture_output=True, text=True, timeout=90
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": 202 /_relay/requests/127.0.0.1:") == 5
    assert done.stdout.endswith("5 of 5 orders arrived\n")
