"""Stage 3: what one listing of everything below `in-progress` said: keys, leases, slots, stored settings."""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from workqueue.backends.gcs.address import Place
from workqueue.backends.gcs.api.objects import Stored
from workqueue.backends.gcs.metadata import incarnation_of, lease_expiry_us, token_of

__all__ = ["STRANGER", "Running", "Seen"]

STRANGER = "?"
"""Stands for all dispatchers that stamp no lease of ours: Go."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A key in progress, or a slot: the object, when its lease lapses by the store's clock, and its token if ours."""

    stored: Stored
    expires_us: int
    token: str

    @classmethod
    def of(cls, stored: Stored) -> Seen:
        """What an object says."""
        return cls(stored, lease_expiry_us(stored.metadata), token_of(stored.metadata))


@dataclass(slots=True)
class Running:
    """One listing.

    Args:
        keys: what is in progress, by key.
        stuck: what is set aside: nobody has these keys, and nobody can take them.
        slots: the slots, by number.
        settings: the stored settings; None while there are none.
        starts: the saved starts; None while there are none.
    """

    keys: dict[str, Seen] = field(default_factory=dict)
    stuck: dict[str, Seen] = field(default_factory=dict)
    slots: dict[int, Seen] = field(default_factory=dict)
    settings: Stored | None = None
    starts: Stored | None = None

    def add(self, place: Place, items: Iterable[Stored]) -> None:
        """File a page; what has a name that nobody gave it is left alone."""
        folder, slots = place.in_progress, place.slots
        for stored in items:
            name = stored.name
            if name.startswith(folder):
                self.keys[name[len(folder) :]] = Seen.of(stored)
            elif name.startswith(slots) and name[len(slots) :].isdigit():
                self.slots[int(name[len(slots) :])] = Seen.of(stored)
            elif name == place.settings:
                self.settings = stored
            elif name == place.starts:
                self.starts = stored

    @property
    def taken(self) -> Mapping[str, Seen]:
        """The keys of which no other attempt can be started."""
        return ChainMap(self.keys, self.stuck) if self.stuck else self.keys

    def orphans(self, now_us: int) -> dict[str, Seen]:
        """The keys whose leases have lapsed."""
        return {key: seen for key, seen in self.keys.items() if seen.expires_us <= now_us}

    def live(self, now_us: int) -> int:
        """How many leases live; a slot whose key is not seen (yet, or any more) counts as one."""
        tokens = {seen.token for seen in self.slots.values() if seen.expires_us > now_us}
        live = [seen for seen in self.keys.values() if seen.expires_us > now_us]
        return len(live) + len(tokens - {seen.token for seen in live})

    def free_slots(self, room: int) -> list[int]:
        """The lowest free numbers, no more of them than there is room: so a limit holds while it is lowered, too."""
        return [number for number in range(room + len(self.slots)) if number not in self.slots][:room]

    def slot_of(self, token: str) -> Stored | None:
        """The slot that a lease holds."""
        return next((seen.stored for seen in self.slots.values() if token and seen.token == token), None)

    def dispatchers(self) -> set[str]:
        """Who has keys in progress, or slots, which are taken before keys are chosen: our processes, and `STRANGER`."""
        tokens = {seen.token for each in (self.keys, self.slots) for seen in each.values()}
        return {incarnation_of(token) or STRANGER for token in tokens}

    def by_age(self, now_us: int) -> list[Seen]:
        """The keys with live leases, those started first in front."""
        live = [seen for seen in self.keys.values() if seen.expires_us > now_us]
        return sorted(live, key=lambda seen: (seen.stored.created_us, seen.stored.generation))

    def next_lapse_us(self) -> int | None:
        """When the first lease lapses."""
        return min((seen.expires_us for seen in self.keys.values()), default=None)

    def by_owner(self) -> Mapping[str, int]:
        """How many keys each owner has in progress."""
        return Counter(seen.stored.metadata.get("owner", "") for seen in self.keys.values())
