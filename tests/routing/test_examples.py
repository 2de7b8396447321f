"""The examples of the routing room run, and so does what its guide shows."""

from __future__ import annotations

import re
from pathlib import Path

import dispatcher
from dispatcher import command_callback
from tests.support.dispatching import Recorder, memory
from tests.support.processes import REPOSITORY, python

GUIDE = (REPOSITORY / "docs/routing.md").read_text()


def run(*command: str, cwd: Path = REPOSITORY, **env: str) -> list[str]:
    """The lines that a program writes; it must succeed."""
    done = python(*command, cwd=cwd, env={"PYTHONPATH": str(REPOSITORY), **env})
    assert done.code == 0, done.err
    return done.out.splitlines()


def shown(name: str) -> str:
    found = re.search(rf"<!-- runs: {name} -->\n```python\n(.*?)```", GUIDE, re.DOTALL)
    assert found, f"the guide shows no {name}"
    return found[1]


def test_each_kind_of_key_goes_to_its_callback() -> None:
    assert sorted(run("-m", "examples.routing.several_callbacks")) == [
        "anything else: cleanup",
        "certificate: certificate/example.org",
        "customer: customer/42",
    ]


def test_each_message_goes_to_its_handler() -> None:
    assert run("-m", "examples.routing.messages") == [
        "order 1 of 9.5 by shop",
        "file report.pdf",
        "skipped order.created of shop: ValueError: the total of order 2 is negative",
        "order 3 of 0.0 by events",
    ]


async def test_a_shell_script_is_a_handler() -> None:
    queue, events = memory(), Recorder()
    for key in ("fine", "broken/1", "gone/1"):
        await queue.queue(key)

    callback = command_callback(str(REPOSITORY / "examples/routing/handle.sh"))
    await dispatcher.handle(queue, callback=callback, errors=events)

    assert sorted((event.key, event.failure.action) for event in events.events) == [
        ("broken/1", "requeued"),
        ("gone/1", "dropped"),
    ]
    assert (await queue.counts()).queued + (await queue.counts()).not_before == 1


def test_the_first_use_takes_ten_lines_and_runs_as_it_stands_in_the_guide(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(shown("first"))
    url = {"WORKQUEUE_URL": f"sqlite:///{tmp_path}/wq.db"}

    run("-m", "workqueue.cli", "enqueue", "customer/42", "certificate/example.org", cwd=tmp_path, **url)
    lines = run("-m", "dispatcher.cli", "run", "--once", "--callback", "mine:router", cwd=tmp_path, **url)

    assert len([line for line in shown("first").splitlines() if line]) <= 10
    assert sorted(lines) == ["certificate: certificate/example.org", "customer: customer/42"]


def test_the_messages_of_the_guide_are_handled_as_it_says(tmp_path: Path) -> None:
    output = GUIDE.partition(shown("messages"))[2].partition("```text\n")[2].partition("```")[0]

    assert run("-c", shown("messages"), cwd=tmp_path) == output.splitlines()
