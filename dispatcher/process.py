"""One dispatcher process: loop, trigger and perhaps receiver in one event loop, and how they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from workqueue.extras import importing

with importing("serve", "a dispatcher process"):
    from prometheus_client import REGISTRY

from dispatcher.callback import Callback
from dispatcher.error_events import ErrorEvents
from dispatcher.health import Health
from dispatcher.loop import Dispatcher, run_until_signalled
from dispatcher.outage import Outage
from dispatcher.round import Round
from dispatcher.settings import DispatcherSettings
from dispatcher.setup import Setup
from dispatcher.trigger import Trigger
from workqueue.backends import open_queue
from workqueue.fallbacks import FullQueue
from workqueue.metrics import metrics_of
from workqueue.rpc.receiver import receive
from workqueue.signals import until_signalled
from workqueue.telemetry.exposition import Exposition, identity
from workqueue.telemetry.gauges import GaugeRefresher
from workqueue.telemetry.samples import SampleSource
from workqueue.web.front import Front

if TYPE_CHECKING:  # cron and templates, which few processes need
    from starlette.types import ASGIApp

    from dispatcher.schedules import Schedules
    from workqueue.web.console import Console
    from workqueue.web.console.watched import AskDispatchers

__all__ = ["Process"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Process:
    """What one process works on.

    Args:
        url: the queue.
        owner: recorded with the keys that it starts.
        callback: what is called, to be entered.
        settings: how the dispatcher goes about it.
        events: where error events of a queue go, by its name.
        environ: names the process in its metrics.
        schedules: fired beside, into the same queue.
        sources: whatever else counts in this process.
        console: makes the one that is served at `/console/`, of the queue and of who asks this dispatcher.
    """

    url: str
    owner: str
    callback: AbstractAsyncContextManager[Callback]
    settings: DispatcherSettings
    events: Callable[[str], ErrorEvents]
    environ: Mapping[str, str]
    schedules: Schedules | None = None
    sources: Sequence[SampleSource] = ()
    console: Callable[[FullQueue, AskDispatchers], Console] | None = None

    async def once(self) -> None:
        """Run one round. SIGTERM lets its callbacks run on for `drain_timeout`, a second one cancels them.

        Raises:
            StoreError: the store failed before any key was started.
            ExceptionGroup: it failed for some keys; the others were processed.
            TargetUnavailableError: the target is down; keys that were started for it were released unspent.
        """
        async with open_queue(self.url, owner=self.owner) as queue, self.callback as callback:
            errors = self.events(metrics_of(queue).name)
            setup = Setup.of(queue, callback, self.settings, errors, outage=Outage(lasting=False))
            round_ = Round(setup)
            try:
                with until_signalled(partial(_end_in, self.settings.drain_timeout, round_), round_.stop):
                    await round_.run()
            finally:
                await errors.give_up()
                log.info("one round: %s", _counted(setup.metrics.outcomes.items()), extra={"queue": setup.metrics.name})

    async def serve(self, front: Front, grpc_port: int | None) -> None:
        """Dispatch until a signal, then drain.

        Args:
            front: where trigger, probes and metrics are.
            grpc_port: where the receiver is; None = there is none.
        """
        async with open_queue(self.url, owner=self.owner) as queue, self.callback as callback:
            errors = self.events(metrics_of(queue).name)
            dispatcher = Dispatcher(queue, callback, self.settings, errors=errors)
            fired = self.schedules.fired(queue) if self.schedules is not None else nullcontext()
            watched = self._watched(dispatcher.setup, dispatcher.health, front)
            async with watched as trigger, _received(queue, front, grpc_port, dispatcher.health), fired:
                await run_until_signalled(dispatcher, trigger)

    async def answer(self, front: Front) -> None:
        """Run a round for each call of the trigger and none besides, until SIGTERM or SIGINT; then drain."""
        async with open_queue(self.url, owner=self.owner) as queue, self.callback as callback:
            errors = self.events(metrics_of(queue).name)
            async with self._watched(Setup.of(queue, callback, self.settings, errors), None, front) as trigger:
                stopping = asyncio.Event()
                with until_signalled(stopping.set, trigger.hurry):
                    await stopping.wait()
                    await trigger.drain()
            await errors.give_up()

    @property
    def _sources(self) -> list[SampleSource]:
        return [*self.sources, *([self.schedules.metrics] if self.schedules is not None else [])]

    @asynccontextmanager
    async def _watched(self, setup: Setup, health: Health | None, front: Front) -> AsyncIterator[Trigger]:
        """Serve trigger, probes and metrics over HTTP until the block ends; without a loop's `health` its own."""
        metrics = metrics_of(setup.queue)
        exposition = Exposition(
            identity(self.environ), [metrics], [setup.metrics], others=[REGISTRY], sources=self._sources
        )
        trigger = Trigger(setup, health)
        async with (
            GaugeRefresher(setup.queue, metrics, [setup.metrics]),
            self._served(front, trigger, trigger.app(exposition.scraped), setup.queue),
        ):
            try:
                yield trigger
            finally:
                await trigger.drain()

    @asynccontextmanager
    async def _served(self, front: Front, trigger: Trigger, app: ASGIApp, queue: FullQueue) -> AsyncIterator[None]:
        """Serve the trigger's app, and perhaps a console beside it, until the block ends."""
        shows = "trigger, probes and metrics"
        if self.console is None:
            async with front.opened(app, shows):
                yield
            return
        from workqueue.web.console.beside import opened_beside

        async with (
            self.console(queue, trigger.standings) as console,
            opened_beside(front, app, console.app, f"{shows}, and the console at /console/", at="/console"),
        ):
            yield


def _received(
    queue: FullQueue, front: Front, grpc_port: int | None, health: Health
) -> AbstractAsyncContextManager[object]:
    """Take keys over gRPC until the block ends, where the process is to."""
    if grpc_port is None:
        return nullcontext()
    return receive(queue, host=front.host, port=grpc_port, security=front.security, drains=lambda: health.draining)


def _end_in(patience: timedelta, round_: Round) -> None:
    """Give the callbacks of a round this long to end."""
    asyncio.get_running_loop().call_later(patience.total_seconds(), round_.stop)


def _counted(outcomes: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in outcomes if number) or "no key to start"
