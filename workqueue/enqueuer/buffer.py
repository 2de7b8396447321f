"""Stage 1: the keys that wait to be sent (pure): what is put twice is merged, and no key is on its way twice.

A key that is put again while it is on its way is held back until that batch has landed. In a second batch it could
overtake the first, and the older payload would win.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from workqueue.clock import from_us
from workqueue.errors import InvalidOptionsError
from workqueue.key import validate_key
from workqueue.options import Options
from workqueue.rules import enqueued, merge_incoming

__all__ = ["Buffer", "merged"]


class Buffer:
    """Up to `limit` distinct keys that wait.

    `ready` are those that may be sent, oldest first.
    """

    def __init__(self, limit: int) -> None:
        self.ready: dict[str, Options] = {}
        self._limit = limit
        self._held: dict[str, Options] = {}
        self._flying: set[str] = set()

    def __len__(self) -> int:
        return len(self.ready) + len(self._held)

    def take(self, key: str, options: Options) -> bool | None:
        """Add `key`; True: it is one more, False: it was merged with itself, None: there is no room for it.

        Raises:
            InvalidKeyError: it was not added.
        """
        ready = self.ready
        home = self._held if key in self._flying else ready
        if key not in home:
            if len(ready) + len(self._held) >= self._limit:
                return None
            home[validate_key(key)] = options
            return True
        waiting = home[key]
        if options is waiting or options == waiting:
            return False
        both = merged(waiting, options)
        if both is None:
            return None
        home[key] = both
        return False

    def launch(self, limit: int) -> dict[str, Options]:
        """Take out up to `limit` keys, oldest first, to be sent."""
        if len(self.ready) <= limit:
            items, self.ready = self.ready, {}
        else:
            items = dict(islice(self.ready.items(), limit))
            for key in items:
                del self.ready[key]
        self._flying.update(items)
        return items

    def landed(self, keys: Collection[str]) -> None:
        """These are not on their way any more; those put again meanwhile become ready."""
        self._flying.difference_update(keys)
        if self._held:
            for key in keys:
                if key in self._held:
                    self.ready[key] = self._held.pop(key)

    def clear(self) -> dict[str, Options]:
        """Take out every key that waits."""
        left = {**self.ready, **self._held}
        self.ready.clear()
        self._held.clear()
        return left


def merged(waiting: Options, newer: Options) -> Options | None:
    """What a store would make of the two, one after the other; None if one `Options` has no room for both."""
    entry = merge_incoming(enqueued("", waiting, 0), enqueued("", newer, 0))
    not_before = from_us(entry.not_before_us) if entry.not_before_us else None
    try:
        return Options(entry.priority, not_before, entry.floor, entry.payload, entry.meta)
    except InvalidOptionsError:  # the names in the meta of both are more than 1 KiB
        return None
