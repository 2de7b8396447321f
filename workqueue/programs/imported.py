"""For programs: an object of the user's, named on a command line as `package.module:name`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from traceback import print_exception
from types import TracebackType

from workqueue.errors import InvalidSettingError
from workqueue.safe_text import describe

__all__ = ["imported"]


def imported(setting: str, name: str) -> object:
    """The object `package.module:name`; modules in the working directory are found, as with `python -m`.

    Args:
        setting: which setting named it, for the error.
        name: where it is; `name` may have dots too.

    Raises:
        InvalidSettingError: there is no such module or no such object in it, or the module itself raised while it was
            imported. Of that the traceback was written to stderr, from the module on: its author needs it.
    """
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path) or module_name.startswith("."):
        raise InvalidSettingError(f"{setting}: it takes package.module:name, not {name!r}")
    try:
        here = str(Path.cwd())
    except OSError as error:
        raise InvalidSettingError(f"{setting}: the working directory is gone ({error.strerror})") from error
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise InvalidSettingError(
                f"{setting}: there is no module {error.name!r}, looked for in {here} too"
            ) from error
        print_exception(error.with_traceback(_from_the_module(error.__traceback__)))
        raise InvalidSettingError(f"{setting}: {module_name} cannot be imported: {describe(error)}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise InvalidSettingError(f"{setting}: {module_name} has no {path!r}")
        found = getattr(found, part)
    return found


def _from_the_module(traceback: TracebackType | None) -> TracebackType | None:
    """Without the frames before it, ours and those of the import system; a syntax error has no others."""
    own = traceback
    while own is not None and ("importlib" in (name := own.tb_frame.f_code.co_filename) or name == __file__):
        own = own.tb_next
    return own
