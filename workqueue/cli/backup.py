"""The commands about copies of a queue in a SQLite file: backup, restore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from workqueue.backends.url import QueueURL
from workqueue.errors import InvalidSettingError
from workqueue.programs import printing
from workqueue.programs.flags import naming, with_flags
from workqueue.programs.settings import OutputFlags

if TYPE_CHECKING:
    from workqueue.backends.sqlite.file import QueueFile

__all__ = ["backup", "restore"]

_Place = Annotated[str, typer.Argument(metavar="URL", help="the queue: sqlite:///path.db")]
_Target = Annotated[str, typer.Argument(metavar="FILE", help="a file to make")]
_Backup = Annotated[str, typer.Argument(metavar="FILE", help="a file that `workqueue backup` made")]


@with_flags
def backup(place: _Place, target: _Target, output: OutputFlags) -> None:
    """Copy a SQLite file, with every queue in it, while it is used.

    The copy is one file, as of one commit, checked and on disk once this ends with 0.
    """
    from workqueue.backends.sqlite.backup import back_up

    keys = back_up(_file(place), target)
    with printing.done():
        if output.json:
            printing.document({"file": target, "keys": keys})
        else:
            printing.note(f"backed up {keys} keys to {target}")


@with_flags
def restore(source: _Backup, place: _Place, output: OutputFlags) -> None:
    """Put a backup in the place of a SQLite file.

    Stop every process that uses the file first: this refuses to begin while one has it open. The old file and its log
    are kept beside it. Keys that were in progress when the backup was made run again once their leases have lapsed.
    """
    from workqueue.backends.sqlite.backup import restore as put_back

    file = _file(place)
    keys, aside = put_back(source, file)
    with printing.done():
        if output.json:
            printing.document({"file": file.path, "keys": keys, "before": aside or None})
        else:
            kept = f"; what was there is now {aside}" if aside else ""
            printing.note(f"restored {keys} keys to {file.path}{kept}")


def _file(place: str) -> QueueFile:
    from workqueue.backends.sqlite.file import file_of

    with naming("URL"):
        url = QueueURL.parse(place)
        if url.scheme != "sqlite":
            raise InvalidSettingError(
                f"it takes sqlite:///path.db, not {url.scheme}://: Redis and buckets have backups of their own"
            )
        return file_of(url)
