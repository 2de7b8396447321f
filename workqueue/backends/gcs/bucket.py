"""Stage 2: one bucket and everything that works on it; and what about a bucket would break a queue, or bill it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workqueue.backends.gcs.address import GCSSettings, Place
from workqueue.backends.gcs.api.credentials import TokenSource
from workqueue.backends.gcs.api.objects import Objects
from workqueue.backends.gcs.api.requests import HTTP, NotAllowedError
from workqueue.backends.gcs.api.store_time import StoreTime
from workqueue.backends.gcs.listing.listing import Listing
from workqueue.backends.gcs.moves import Moves
from workqueue.backends.gcs.stored_settings import StoredSettings
from workqueue.clock import Clock, SystemClock
from workqueue.errors import StoreUnavailableError
from workqueue.metrics import QueueMetrics

__all__ = ["Bucket", "Identity", "warnings_about"]

log = logging.getLogger(__name__)

_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Identity:
    """Who works on the bucket: the queue's name, for metrics, and the owner recorded with keys."""

    name: str
    owner: str


class Bucket:
    """One bucket and its parts.

    Args:
        settings: where it is and how to work it.
        clock: takes the place of the machine's and the store's clocks.
        identity: who works on it.
        news: called when there may be something to start.
        tokens: where bearer tokens come from instead of the ambient credentials.
    """

    def __init__(
        self,
        settings: GCSSettings,
        clock: Clock | None,
        identity: Identity,
        news: Callable[[], None],
        tokens: TokenSource | None = None,
    ) -> None:
        self.settings = settings
        self.identity = identity
        self.place = Place(settings.prefix)
        self.clock: Clock = clock or SystemClock()
        self.time = StoreTime(clock)
        self.metrics = QueueMetrics(identity.name)
        self._tokens = tokens
        self._http = self.connect()
        self.objects = Objects(self._http, settings.bucket)
        self.moves = Moves(self.objects, self.place)
        self.listing = Listing(self.objects, self.place, settings, self.clock, self.metrics, news)
        self.stored = StoredSettings(self.objects, self.place, self.time)

    def connect(self) -> HTTP:
        """Connections for one event loop; not opened yet."""
        return HTTP(self.settings, self.time, self._tokens)

    async def open(self) -> None:
        """Connect, and look at the bucket.

        Raises:
            StoreUnusableError: there is no such bucket, or the credentials are no good.
        """
        await self._http.open()
        try:
            await self._check()
        except BaseException:
            await self._http.close()
            raise

    async def close(self) -> None:
        """Close every connection."""
        self.listing.close()
        await self._http.close()

    async def _check(self) -> None:
        """Log what would break or bill the queue, or that this process may not look at the bucket."""
        try:
            resource = await self.objects.bucket()
        except StoreUnavailableError as error:  # not a reason to stop: it may be back before anybody asks for a key
            log.warning("gs://%s does not answer yet: %s", self.settings.bucket, error)
            return
        except NotAllowedError as error:
            log.info("retention and soft delete of gs://%s are not checked: %s", self.settings.bucket, error)
            return
        for warning in warnings_about(resource):
            log.warning("gs://%s %s", self.settings.bucket, warning)


def warnings_about(resource: Mapping[str, Any]) -> list[str]:
    """What about a bucket makes it a bad place for a queue.

    Source: https://cloud.google.com/storage/docs/json_api/v1/buckets#resource
    """
    warnings = []
    retained = int(resource.get("retentionPolicy", {}).get("retentionPeriod", 0))
    if retained:
        warnings.append(
            f"retains objects for {retained} s: no key can be completed before, remove the retention policy"
        )
    if resource.get("defaultEventBasedHold"):
        warnings.append("holds every new object: no key can ever be completed, switch the default event-based hold off")
    kept = int(resource.get("softDeletePolicy", {}).get("retentionDurationSeconds", 0))
    if kept:
        days = kept / _DAY_SECONDS
        warnings.append(f"keeps deleted objects for {days:g} days, each billed for so long: set soft delete to 0")
    if resource.get("versioning", {}).get("enabled"):
        warnings.append("keeps a version of every object ever deleted, and bills it: switch versioning off")
    if any(rule.get("action", {}).get("type") == "Delete" for rule in resource.get("lifecycle", {}).get("rule", [])):
        warnings.append("has a lifecycle rule that deletes objects: a key that it deletes is lost")
    return warnings
