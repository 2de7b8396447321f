"""Completing command lines in a shell."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.processes import Ended, ran
from tests.support.programs import dispatcher, workqueue

BIN = Path(sys.executable).parent


def completed(program: str, words: str, shell: str) -> str:
    """What the shell is answered when it asks for completions of `words`."""
    asked = {
        f"_{program.upper()}_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    ended = ran([BIN / program], env=asked)
    assert ended.err == ""
    return ended.out


@pytest.mark.parametrize(
    ("shell", "program", "words", "expected"),
    [
        ("bash", "workqueue", "workqueue dead-l", "dead-letters"),
        ("zsh", "workqueue", "workqueue dead-letters red", "redrive"),
        ("zsh", "dispatcher", "dispatcher ser", "serve"),
        ("fish", "workqueue", "workqueue ls --min", "--min-attempts"),
        ("fish", "dispatcher", "dispatcher ser", "serve"),
    ],
)
def test_a_shell_completes_commands_and_flags(shell: str, program: str, words: str, expected: str) -> None:
    assert expected in completed(program, words, shell)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_program_prints_what_its_shell_needs(shell: str) -> None:
    for run, name in ((workqueue, "workqueue"), (dispatcher, "dispatcher")):
        ended: Ended = run("completion", shell)

        assert ended.code == 0
        assert f"_{name.upper()}_COMPLETE" in ended.out


def test_bash_completes_what_it_was_given() -> None:
    line = (
        "source <(workqueue completion bash); COMP_WORDS=(workqueue sta); COMP_CWORD=1;"
        ' _workqueue_completion workqueue; echo "${COMPREPLY[@]}"'
    )
    path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    ended = ran(["bash", "-c", line], env=path)

    assert (ended.out, ended.err) == ("stats\n", "")


def test_another_shell_is_refused() -> None:
    ended = workqueue("completion", "tcsh")

    assert (ended.code, ended.err) == (2, "workqueue: SHELL: it takes bash, zsh or fish, not 'tcsh'\n")
