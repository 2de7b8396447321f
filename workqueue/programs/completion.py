"""For programs: completing their command lines in a shell: `program completion bash` prints what the shell needs.

The shell then runs the program itself, with a variable that asks for completions instead of a command.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import typer

from workqueue.errors import InvalidSettingError
from workqueue.programs import printing

__all__ = ["completes", "completion_of", "make_ready"]

_SHELLS = ("bash", "zsh", "fish")
_Shell = Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish")]


def completion_of(name: str) -> Callable[..., None]:
    """The command `completion` of the program `name`."""

    def completion(shell: _Shell) -> None:
        from typer._completion_shared import get_completion_script

        if shell not in _SHELLS:
            raise InvalidSettingError(f"SHELL: it takes bash, zsh or fish, not {shell!r}")
        printing.verbatim(get_completion_script(prog_name=name, complete_var=_variable(name), shell=shell))

    completion.__doc__ = f"""Print what lets a shell complete this program's command lines.

    bash: put `source <({name} completion bash)` into ~/.bashrc. zsh: `{name} completion zsh > ~/.zfunc/_{name}`, with
    ~/.zfunc in fpath. fish: `{name} completion fish > ~/.config/fish/completions/{name}.fish`.
    """
    return completion


def completes(name: str) -> bool:
    """Whether a shell runs this process to complete a command line of the program `name`."""
    return _variable(name) in os.environ


def make_ready() -> None:
    """Let typer answer the shell."""
    from typer._completion_classes import completion_init

    completion_init()


def _variable(name: str) -> str:
    return f"_{name.upper()}_COMPLETE"
