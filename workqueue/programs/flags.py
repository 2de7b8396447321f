"""For programs: flags as typed settings. A group of flags is a frozen dataclass, and a command takes whole groups.

    @dataclass(frozen=True, slots=True)
    class Pace:
        rate: Annotated[float | None, Flag("at most this many a second", takes=RATE)] = None

    @with_flags
    def redrive(keys: Keys, pace: Pace) -> None: ...

typer sees each field as a flag of its own. So a group is written once, is checked in its `__post_init__`, and tests and
documentation can list every setting there is.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import Field, dataclass, fields, is_dataclass
from datetime import timedelta
from typing import Annotated, Any, cast, get_args, get_type_hints

import typer

from workqueue.errors import InvalidSettingError
from workqueue.programs.converters import SWITCH, TEXT, Converter, spoken

__all__ = ["BadSettingError", "Flag", "flags_of", "naming", "with_flags"]


class BadSettingError(typer.BadParameter):
    """A setting has a value that it cannot take; the message is the whole line."""

    def format_message(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Flag:
    """How one setting is given.

    Args:
        help: what it does, for `--help`.
        env: environment variables that set it too; the first that is set and not empty counts. None named: one made of
            the names of program, command and flag.
        takes: what it takes; a switch (bool) takes nothing.
        name: the flag, where it is not the field's name.
        many: may be given several times; the field is a tuple.
        spell_out: only the flag itself sets it, no environment variable.
    """

    help: str
    env: tuple[str, ...] = ()
    takes: Converter = TEXT
    name: str = ""
    many: bool = False
    spell_out: bool = False


def flags_of(group: type) -> Iterator[tuple[Field[Any], str, Flag]]:
    """Each setting of a group: its field, its flag as typed on a command line, and how it is given.

    A field that is a group itself stands for its own settings.
    """
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from flags_of(cast("type", hint))
        else:
            [flag] = [extra for extra in get_args(hint)[1:] if isinstance(extra, Flag)]
            yield field, flag.name or "--" + field.name.replace("_", "-"), flag


def _build(group: type, given: dict[str, Any]) -> Any:
    """An instance of `group` with the values that typer found, which are taken out of `given`."""
    hints = get_type_hints(group)
    return group(
        **{
            field.name: _build(hints[field.name], given)
            if is_dataclass(hints[field.name])
            else _plain(given.pop(field.name))
            for field in fields(group)
        }
    )


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Name `setting` in an InvalidSettingError raised within, by code that does not know where its value came from."""
    try:
        yield
    except InvalidSettingError as error:
        raise InvalidSettingError(f"{setting}: {error}") from error


def with_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let `command` take groups of flags: a parameter typed as a dataclass stands for a flag per field."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint) and isinstance(hint, type)}

    @functools.wraps(command)
    def spelled_out(**given: Any) -> Any:
        for name, group in groups.items():
            given[name] = _build(group, given)
        return command(**given)

    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += [_spell(*setting) for setting in flags_of(groups[name])]
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
    spelled_out.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spelled_out.__annotations__ = {}
    return spelled_out


def _spell(field: Field[Any], name: str, flag: Flag) -> inspect.Parameter:
    switch = field.default is False
    option = typer.Option(
        name,
        envvar=list(flag.env) or None,
        help=flag.help,
        metavar=None if switch else flag.takes.metavar,
        parser=_parser(name, SWITCH if switch else flag.takes, flag.env),
        allow_from_autoenv=not flag.spell_out,
    )
    kind: Any = bool if switch else list[str] if flag.many else str
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=_typed(field.default), annotation=Annotated[kind, option]
    )


def _typed(default: Any) -> Any:
    """A default as it would be typed, which is how `--help` shows it; the parser reads it like any other."""
    if isinstance(default, timedelta):
        return spoken(default)
    return list(default) if isinstance(default, tuple) else default


def _parser(name: str, takes: Converter, env: Sequence[str]) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if not isinstance(value, str):  # typer passes defaults through here, too
            return value
        try:
            return takes.convert(value)
        except ValueError as error:
            setting = " or ".join((name, *env))
            raise BadSettingError(f"{setting}: {error}, not {value!r}") from error

    return parse


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
