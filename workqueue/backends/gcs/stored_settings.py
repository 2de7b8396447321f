"""Stage 4: the settings stored with a queue, and its starts per second: two small objects beside the keys in progress.

They come along with every listing of what is in progress, so honouring them costs no request; only starting under a
rate costs one write a lease step.
"""

from __future__ import annotations

from collections.abc import Mapping

from workqueue.backends.gcs.address import Place
from workqueue.backends.gcs.api.objects import Objects, Stored
from workqueue.backends.gcs.api.store_time import StoreTime
from workqueue.backends.gcs.listing.running import Running
from workqueue.errors import InvalidOptionsError, StoreUnusableError
from workqueue.throttle import Configuration, TokenBucket

__all__ = ["LAYOUT", "StoredSettings", "check_settings", "configuration_of"]

LAYOUT = 1
"""The version of everything that is ours in a bucket; a higher one is refused."""

_MOST_ROUNDS = 5


def configuration_of(settings: Stored | None) -> Configuration:
    """The settings in an object; what is malformed counts as not set, so that nobody's typo stops the queue."""
    metadata = settings.metadata if settings is not None else {}
    try:
        return Configuration(
            int(metadata["concurrency"]) if "concurrency" in metadata else None,
            metadata.get("paused") == "true",
            float(metadata["starts-per-second"]) if "starts-per-second" in metadata else None,
        )
    except (ValueError, InvalidOptionsError):
        return Configuration(paused=metadata.get("paused") == "true")


def check_settings(settings: Stored | None, *, exact: bool) -> None:
    """Refuse to start keys in a bucket that is worked in a way that this process does not know of, or keep to.

    Raises:
        StoreUnusableError: its layout is newer, or its limit is exact and this process does not keep to that.
    """
    metadata = settings.metadata if settings is not None else {}
    layout = metadata.get("layout", "0")
    if layout.isdigit() and int(layout) > LAYOUT:
        raise StoreUnusableError(
            f"the bucket's layout {layout} is newer than {LAYOUT}, which this release knows: upgrade"
        )
    if metadata.get("exact") == "true" and not exact:
        raise StoreUnusableError(
            "the limit of this bucket is exact, which takes all dispatchers: add exact=true to the gs:// URL of this "
            "one, or delete the object in-progress-settings once none of the others has it"
        )


class StoredSettings:
    """The objects that hold them.

    Args:
        objects: the bucket.
        place: the names in it.
        time: judges how many starts are saved up.
    """

    def __init__(self, objects: Objects, place: Place, time: StoreTime) -> None:
        self._objects = objects
        self._place = place
        self._time = time

    async def read(self) -> Configuration:
        """The stored settings."""
        return configuration_of(await self._objects.read(self._place.settings))

    async def write(self, configuration: Configuration) -> None:
        """Replace the stored settings; a new rate begins with one second's worth of starts."""
        before = await self._objects.read(self._place.settings)
        known = before.metadata if before is not None else {}
        rate = configuration.starts_per_second
        if rate is not None and rate != configuration_of(before).starts_per_second:
            await self._objects.write(self._place.starts, self._saved(TokenBucket.full(rate, self._time.now_us())))
        metadata = _metadata(configuration, known)
        if before is not None and metadata == {"layout": str(LAYOUT)}:
            await self._objects.delete(before.pin)
        elif metadata != known and (before is not None or len(metadata) > 1):
            await self._objects.write(self._place.settings, metadata)

    async def mark_exact(self, running: Running) -> None:
        """Say in the bucket that its limit is exact, unless that is said already."""
        known = running.settings.metadata if running.settings is not None else {}
        if known.get("exact") != "true":
            metadata = {"layout": str(LAYOUT), **known, "exact": "true"}
            running.settings = await self._objects.write(self._place.settings, metadata)

    def saved_up(self, running: Running, rate: float) -> int:
        """How many keys may be started under `rate`."""
        return max(int(self._refilled(running.starts, rate).saved), 0)

    def next_start_us(self, running: Running, rate: float) -> int:
        """Microseconds until one start is saved up."""
        return self._refilled(running.starts, rate).wait_us(rate)

    async def spend(self, running: Running, rate: float, starts: int) -> int:
        """Take up to `starts` out of the bucket before they are made; returns how many there were.

        Others take from it, too; whoever loses a few races in a row starts nothing this time.
        """
        stored = running.starts
        for _ in range(_MOST_ROUNDS):
            bucket = self._refilled(stored, rate)
            taken = min(int(bucket.saved), starts)
            if taken <= 0:
                return 0
            metadata = self._saved(bucket.spent(taken))
            if stored is None:
                made = (await self._objects.create(self._place.starts, metadata)).made
            else:
                made = (await self._objects.patch(stored.pin, metadata)).made
            if made is not None:
                running.starts = made
                return taken
            stored = await self._objects.read(self._place.starts)
        return 0

    def _refilled(self, stored: Stored | None, rate: float) -> TokenBucket:
        now_us = self._time.now_us()
        metadata = stored.metadata if stored is not None else {}
        try:
            bucket = TokenBucket(float(metadata["saved"]), int(metadata["at"]))
        except (KeyError, ValueError):
            bucket = TokenBucket.full(rate, now_us)
        return bucket.refilled(rate, now_us)

    @staticmethod
    def _saved(bucket: TokenBucket) -> Mapping[str, str]:
        return {"saved": repr(bucket.saved), "at": str(bucket.at_us)}


def _metadata(configuration: Configuration, known: Mapping[str, str]) -> dict[str, str]:
    metadata = {"layout": str(LAYOUT)}
    if known.get("exact") == "true":
        metadata["exact"] = "true"
    if configuration.concurrency is not None:
        metadata["concurrency"] = str(configuration.concurrency)
    if configuration.paused:
        metadata["paused"] = "true"
    if configuration.starts_per_second is not None:
        metadata["starts-per-second"] = repr(configuration.starts_per_second)
    return metadata
