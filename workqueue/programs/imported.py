"""For programs: an object of the user's, named on a command line as `package.module:name`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from workqueue.errors import InvalidSettingError

__all__ = ["imported"]


def imported(setting: str, name: str) -> object:
    """The object `package.module:name`; modules in the working directory are found, as with `python -m`.

    Args:
        setting: which setting named it, for the error.
        name: where it is; `name` may have dots too.

    Raises:
        InvalidSettingError: there is no such module or no such object in it. An error that the module itself raises
            while it is imported passes through: its traceback is what its author needs.
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
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise InvalidSettingError(f"{setting}: there is no module {error.name!r}, looked for in {here} too") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise InvalidSettingError(f"{setting}: {module_name} has no {path!r}")
        found = getattr(found, part)
    return found
