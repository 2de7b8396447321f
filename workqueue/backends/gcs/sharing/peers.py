"""Stage 3: the dispatchers that work on one bucket, and which of them takes which keys first, so as not to race."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from workqueue.backends.gcs.listing.running import STRANGER

__all__ = ["Peers"]

_REMEMBERED_US = 60_000_000  # how long a dispatcher counts as there after something of it was last seen in progress
_LOOKS_UNTIL_ALONE = 3
_MOMENT_US = 1_000_000
_MIX, _BITS = 0x9E3779B1, 0xFFFFFFFF
_FEW, _ANY = 4, 1 << 30
_WIDER, _WIDEST = 4, 256


class Peers:
    """The dispatchers of one bucket, as far as their keys and slots in progress show.

    Those of ours share the keys by hashing. Go does not, so no key is left to it: what it does not take would wait.

    Nobody announces itself, so a dispatcher that has just come does not know of others that have just come, too: all
    would start the same keys. So it tries a few at first, and again when it lost most of those that it tried.

    Args:
        incarnation: this process.
    """

    def __init__(self, incarnation: str) -> None:
        self._incarnation = incarnation
        self._seen: dict[str, int] = {}
        self._own = zlib.crc32(incarnation.encode())
        self._others: list[int] = []
        self._looks = 0
        self._looked_us = 0
        self._met_us: int | None = None
        self.at_once = _FEW
        """How many keys to start before seeing whether others are at them, too."""
        self.reach = 1
        """Out of how many times as many keys to choose at random, to get out of the way of others at the same ones."""

    def saw(self, incarnations: Iterable[str], now_us: int) -> None:
        """These had something in progress."""
        self._looks += 1
        self._looked_us = now_us
        self._seen.update(dict.fromkeys(incarnations, now_us))
        self._seen = {name: seen_us for name, seen_us in self._seen.items() if now_us - seen_us <= _REMEMBERED_US}
        self._seen.pop(self._incarnation, None)
        self._others = [zlib.crc32(name.encode()) for name in self._seen if name != STRANGER]

    def tried(self, keys: int, lost: int) -> None:
        """Of `keys` that this process tried to start, others were faster with `lost`."""
        if not lost:
            self.at_once, self.reach = _ANY, 1
        elif 2 * lost >= keys:
            self.at_once, self.reach = _FEW, min(self.reach * _WIDER, _WIDEST)

    def met(self) -> None:
        """Others were at what we tried to take beyond our own."""
        self._met_us = self._looked_us

    @property
    def crowded(self) -> bool:
        """Whether others were met a moment ago, so that it is better to keep to our own."""
        return self._met_us is not None and self._looked_us - self._met_us < _MOMENT_US

    @property
    def alone(self) -> bool:
        """Whether nobody else was seen for a while; at first that is not known."""
        return self._looks >= _LOOKS_UNTIL_ALONE and not self._seen

    def __len__(self) -> int:
        """How many share the keys, this process included."""
        return 1 + len(self._others)

    def ahead(self, key: str) -> int:
        """How many others take `key` before this process does; 0 for those that it takes first.

        Every two dispatchers agree who of them is ahead, even if they do not know of the same others (rendezvous
        hashing: Thaler, Ravishankar 1998).
        """
        mark = zlib.crc32(key.encode())
        own = _weight(mark, self._own)
        return sum(_weight(mark, other) > own for other in self._others)


def _weight(mark: int, name: int) -> int:
    return (mark ^ name) * _MIX & _BITS
