"""Objects that are set aside, since they name no key or the store will not move them: the others go on.

Nothing of ours writes one. Go takes keys too long to be in progress. A console makes an object for each folder. What is
stored by hand may be encrypted with somebody's own key.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from workqueue.backends.gcs.address import Place
from workqueue.backends.gcs.api.objects import Stored
from workqueue.backends.gcs.listing.packed import Version
from workqueue.interface import KeyStatus

__all__ = ["Aside", "Odd", "Sieve"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Odd:
    """An object that is set aside: whose it would be, where it lies, which version it is, and why."""

    key: str
    where: KeyStatus
    version: Version
    reason: str


class Aside:
    """What is set aside in one bucket.

    Args:
        place: says which keys can be processed.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._odd: dict[tuple[KeyStatus, str], Odd] = {}

    def __len__(self) -> int:
        return len(self._odd)

    def all(self) -> list[Odd]:
        """Everything that is set aside, in the order in which it was found."""
        return list(self._odd.values())

    def odd(self, where: KeyStatus, key: str, stored: Stored) -> Odd | None:
        """Why this version of an object is, or must be, set aside; None if it need not be."""
        reason = self._place.fault_of(key)
        if reason:
            return Odd(key, where, stored.version, reason)
        known = self._odd.get((where, key))
        return known if known is not None and known.version == stored.version else None

    def put(self, odd: Odd) -> None:
        """Set an object aside, and log it, once."""
        if self._odd.get((odd.where, odd.key)) != odd:
            self._odd[odd.where, odd.key] = odd
            log.error(
                "key %r is set aside: %s; `workqueue ls` shows it, `workqueue drop` removes it",
                odd.key,
                odd.reason,
                extra={"key": odd.key},
            )

    def remove(self, odd: Odd) -> None:
        """It is gone."""
        self._odd.pop((odd.where, odd.key), None)

    def keep(self, where: KeyStatus, keys: set[str]) -> None:
        """Forget what is no longer there: of what lies at `where`, only `keys` are."""
        self._odd = {at: odd for at, odd in self._odd.items() if odd.where is not where or odd.key in keys}


class Sieve:
    """Sets aside what one listing shows to be odd, and forgets what it no longer shows.

    Args:
        aside: where it goes.
        where: what is listed.
    """

    def __init__(self, aside: Aside, where: KeyStatus) -> None:
        self._aside = aside
        self._where = where
        self._held: set[str] = set()

    def passes(self, key: str, stored: Stored) -> bool:
        """Whether an object can be processed; one that cannot is set aside."""
        odd = self._aside.odd(self._where, key, stored)
        if odd is not None:
            self._held.add(key)
            self._aside.put(odd)
        return odd is None

    def end(self) -> None:
        """The listing is complete."""
        self._aside.keep(self._where, self._held)
