"""Stage 3: what this process itself did to queued keys since a listing was begun.

A page of the listing may have been read before it or after. Our own word is the later one, and needs no request.
"""

from __future__ import annotations

from collections.abc import Iterator

from workqueue.backends.gcs.listing.packed import Candidate, unpack, version_of

__all__ = ["Overlay"]


class Overlay:
    """By key, the record of the queued entry that this process left there last; None: it left none, or saw none."""

    def __init__(self) -> None:
        self._records: dict[str, bytes | None] = {}

    def note(self, key: str, record: bytes | None) -> None:
        """This process stored the queued entry of `key`, removed it, or saw that it is gone."""
        self._records[key] = record

    def outdates(self, candidate: Candidate) -> bool:
        """Whether `candidate`, listed or of our own doing, is not what this process knows last of its key."""
        if candidate.key not in self._records:
            return False
        record = self._records[candidate.key]
        return record is None or version_of(record) != candidate.version

    def queued(self) -> Iterator[Candidate]:
        """The queued entries that this process left."""
        return (unpack(record) for record in self._records.values() if record is not None)
