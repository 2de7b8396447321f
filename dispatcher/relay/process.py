"""A process that relays: requests come in over HTTP, and a dispatcher sends them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from workqueue.extras import importing

with importing("serve", "relaying HTTP requests"):
    from prometheus_client import REGISTRY

from dispatcher.error_events import ErrorEvents
from dispatcher.loop import Dispatcher, run_until_signalled
from dispatcher.relay.app import relay_app
from dispatcher.relay.delivery import Delivery, backoff_after
from dispatcher.relay.desk import Desk
from dispatcher.relay.forgetting import Forgetting, again_and_again
from dispatcher.relay.intake import Intake
from dispatcher.relay.lanes import Lanes
from dispatcher.relay.metrics import RelayMetrics
from dispatcher.relay.outcomes import Outcomes
from dispatcher.relay.pressure import Pressure
from dispatcher.relay.sender import Sender
from dispatcher.relay.settings import RelaySettings
from dispatcher.relay.target import AllowedTargets
from workqueue.access.security import ClientSecurity
from workqueue.backends import open_queue
from workqueue.fallbacks import FullQueue
from workqueue.metrics import metrics_of
from workqueue.telemetry.exposition import Exposition, identity
from workqueue.telemetry.gauges import GaugeRefresher
from workqueue.web.front import Front
from workqueue.web.http_limits import HttpLimits

__all__ = ["Relay"]


@dataclass(frozen=True, slots=True)
class Relay:
    """What one process relays.

    Args:
        url: the queue of the requests.
        outcomes_url: the queue of the outcomes, beside it.
        allowed: the targets that may be called.
        settings: how to go about it.
        security: how targets are called over TLS.
        events: where error events of a queue go, by its name.
        environ: names the process in its metrics.
        owner: recorded with the requests in hand.
    """

    url: str
    outcomes_url: str
    allowed: AllowedTargets
    settings: RelaySettings
    security: ClientSecurity
    events: Callable[[str], ErrorEvents]
    environ: Mapping[str, str]
    owner: str = ""

    async def serve(self, front: Front) -> None:
        """Relay until a signal, then let the calls under way end.

        Args:
            front: where requests, probes and metrics are.

        Raises:
            InvalidSettingError: the address cannot be listened on.
            StoreError: the store cannot be opened.
        """
        async with AsyncExitStack() as stack:
            queue = await stack.enter_async_context(open_queue(self.url, owner=self.owner))
            kept = await stack.enter_async_context(open_queue(self.outcomes_url, owner=self.owner))
            sender = await stack.enter_async_context(Sender(self.allowed, self.security))
            relaying = _Relaying(self, queue, kept, sender)
            async with relaying.around(front):
                await run_until_signalled(relaying.dispatcher)


class _Relaying:
    """The parts of a relay, put together."""

    def __init__(self, relay: Relay, queue: FullQueue, kept: FullQueue, sender: Sender) -> None:
        settings, clock, name = relay.settings, queue.equipment.clock, metrics_of(queue).name
        outcomes = Outcomes(kept)
        lanes = Lanes(queue, settings.per_target, clock)
        metrics = RelayMetrics(name, lanes.down)
        self._delivery = Delivery(queue, outcomes, lanes, sender, settings, metrics)
        self._pressure = Pressure(queue, settings.most_stored, clock)
        self._intake = Intake(queue, outcomes, relay.allowed, settings, metrics, self._pressure)
        self._desk = Desk(queue, outcomes, lanes.down)
        self._lanes = lanes
        self._queue, self._kept, self._clock = queue, kept, clock
        self._settings = settings
        self.dispatcher = Dispatcher(
            queue, self._delivery, settings.dispatcher(backoff_after(0)), errors=relay.events(name)
        )
        self._forgetting = Forgetting(kept)
        self._exposition = Exposition(
            identity(relay.environ),
            [metrics_of(queue), metrics_of(kept)],
            [self.dispatcher.metrics, self._forgetting.metrics],
            others=[REGISTRY],
            sources=[metrics],
        )

    @asynccontextmanager
    async def around(self, front: Front) -> AsyncIterator[None]:
        """What goes on beside the sending, until the block ends."""
        self._intake.asks_for_tokens = front.security.tokens is not None
        app = relay_app(self._intake, self._desk, self.dispatcher.health, self._exposition.scraped)
        limits = HttpLimits(body_bytes=self._settings.max_body)
        async with (
            GaugeRefresher(self._queue, metrics_of(self._queue), [self.dispatcher.metrics]),
            GaugeRefresher(self._kept, metrics_of(self._kept), [self._forgetting.metrics]),
            self._lanes.tended(),
            self._pressure.measured(),
            again_and_again(self._forgetting, self._queue, self._settings.keep_dead_letters, self._clock),
            front.opened(app, "requests, probes and metrics", limits),
        ):
            yield
