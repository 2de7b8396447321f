"""The example runs, as its reader would run it."""

from __future__ import annotations

from tests.support.processes import python


def test_every_order_of_the_example_arrives() -> None:
    done = python("-m", "examples.relay")

    assert done.code == 0, done.err
    assert done.out.count(": 202 /_relay/requests/127.0.0.1:") == 5
    assert done.out.endswith("5 of 5 orders arrived\n")
