"""Run the suite on whatever `open_queue` opens: each scenario gets a queue of its own within the store at the URL."""

from __future__ import annotations

from urllib.parse import urlencode

from workqueue.backends import open_queue
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.backends.url import QueueURL
from workqueue.interface import WorkQueue
from workqueue.testing import FakeClock

__all__ = ["URLTarget"]


class URLTarget:
    """The store at `url`: a fresh `name` (for gs:// a fresh prefix) is a fresh queue. Leases last 15 s, or as it says.

    Raises:
        InvalidSettingError: `url` is no queue URL.
    """

    fake_clock = True

    def __init__(self, url: str) -> None:
        parsed = QueueURL.parse(url)
        times = parsed.lease_times()
        parsed.name()  # replaced by one for each scenario
        self.lease = times.duration
        self.durable = parsed.scheme != "memory"
        self._place = url.partition("?")[0]
        self._settings = {
            **parsed.settings,
            "lease": f"{times.duration.total_seconds()}s",
            "renew": f"{times.renew_every.total_seconds()}s",
        }
        self._memory: dict[str, MemoryQueue] = {}

    def open(self, name: str, *, clock: FakeClock | None, owner: str) -> WorkQueue:
        """A handle on the queue `name` (see `Target.open`)."""
        first = self._memory.get(name)
        if first is not None:
            return first.peer(owner=owner)  # what lives in the process cannot be opened by URL again
        queue = open_queue(self._url(name), clock=clock, owner=owner)
        if isinstance(queue, MemoryQueue):
            self._memory[name] = queue
        return queue

    def _url(self, name: str) -> str:
        if self._place.startswith("gs://"):  # a bucket holds one queue for each prefix
            return f"{self._place.rstrip('/')}/{name}?{urlencode(self._settings)}"
        return f"{self._place}?{urlencode({**self._settings, 'name': name})}"
