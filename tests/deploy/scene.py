"""For the alerts' tests: a queue, and programs about it that a Prometheus scrapes, as processes of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta

from anyio.from_thread import start_blocking_portal

from tests.deploy.prometheus import Prometheus
from tests.fakes.redis_server import RedisServer
from tests.support.eventually import eventually
from tests.support.programs import Server, serving, workqueue
from workqueue.backends import open_queue
from workqueue.enqueuer import BackgroundEnqueuer
from workqueue.options import FailedKey
from workqueue.telemetry.exposition import Exposition
from workqueue.web.metrics import watching
from workqueue.web.server import http_server

__all__ = ["Scene"]


class Scene:
    """One queue in a Redis of its own; every program ends with `close`.

    Args:
        prometheus: scrapes the programs.
        queue: the queue's name.
    """

    def __init__(self, prometheus: Prometheus, queue: str) -> None:
        self.prometheus = prometheus
        self.queue = queue
        self._open = ExitStack()
        self.store = self._open.enter_context(RedisServer())

    def close(self) -> None:
        self._open.close()

    def command(self, *arguments: str) -> str:
        """What a `workqueue` command about the queue writes."""
        ended = workqueue(*arguments, "--queue", self.store.url(self.queue))
        assert ended.code == 0, ended.err
        return ended.out

    def dispatch(self, *flags: str, lease: str = "30s") -> tuple[Server, int]:
        """A dispatcher, and its HTTP port; a flag says what it calls."""
        return self._scraped("dispatcher.cli", "run", *flags, url=self.store.url(self.queue, lease=lease))

    def fire_schedules(self) -> tuple[Server, int]:
        """A process that fires the queue's schedules, and its port."""
        return self._scraped("dispatcher.cli", "schedules", url=self.store.url(self.queue))

    def receive(self, queue: str = "") -> None:
        """A receiver of the queue or another: it shows how many keys wait."""
        self._scraped("workqueue.cli", "receive", "--grpc-port=0", url=self.store.url(queue or self.queue))

    def subscribe(self) -> int:
        """A receiver of CloudEvents; returns its port."""
        _, port = self._scraped("workqueue.cli", "subscribe", url=self.store.url(self.queue))
        return port

    def relay(self, *flags: str) -> int:
        """A relay; its port."""
        _, port = self._scraped("dispatcher.cli", "relay", *flags, url=self.store.url(self.queue))
        return port

    def enqueue_in_background(self, patience: timedelta) -> Callable[[str], None]:
        """A background enqueuer, in a thread of this process; returns what puts a key into it."""
        portal = self._open.enter_context(start_blocking_portal())
        filling = _filling(self.store.url(self.queue), patience)
        enqueuer, port = self._open.enter_context(portal.wrap_async_context_manager(filling))
        self._scrape(port)
        return lambda key: portal.call(enqueuer.put, key)

    def _scraped(self, *command: str, url: str) -> tuple[Server, int]:
        server = self._open.enter_context(serving(*command, "--http-port=0", env={"WORKQUEUE_URL": url}))
        port = server.port("metrics on")
        self._scrape(port)
        return server, port

    def _scrape(self, port: int) -> None:
        """From now on, and once before this returns: a counter has to be seen before it moves."""
        self.prometheus.scrape(f"{self.queue}:{port}", port)
        eventually("a scrape", lambda: self.prometheus.query(f'up{{instance="127.0.0.1:{port}"}} == 1'))


@asynccontextmanager
async def _filling(url: str, patience: timedelta) -> AsyncIterator[tuple[BackgroundEnqueuer, int]]:
    given_up: list[FailedKey] = []
    at_once = timedelta(0)
    async with (
        open_queue(url) as queue,
        BackgroundEnqueuer(queue, on_error=given_up.append, patience=patience, drain_timeout=at_once) as enqueuer,
        http_server(watching(Exposition(sources=[enqueuer.metrics])), "127.0.0.1", 0) as port,
    ):
        yield enqueuer, port
