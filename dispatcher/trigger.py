"""Stage 3: rounds on request over HTTP, for schedulers that call a URL; and the probes and metrics beside it.

A round belongs to the queue, not to who asked for it: it goes on when the caller hangs up, and callers that ask more
often than once in a period are answered without a round, since the one that just started has seen their keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Unpack

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dispatcher.callback import Callback
from dispatcher.error_events import ErrorEvents
from dispatcher.health import Health
from dispatcher.push import Push
from dispatcher.round import Round
from dispatcher.settings import DispatcherSettings, SettingsArgs
from dispatcher.setup import Setup
from dispatcher.waiting import all_done
from workqueue.clock import duration_us, within
from workqueue.errors import StoreError
from workqueue.interface import WorkQueue
from workqueue.metrics import metrics_of
from workqueue.telemetry.exposition import Exposition
from workqueue.telemetry.gauges import GaugeRefresher

__all__ = ["MAX_BODY_BYTES", "MAX_HEADER_BYTES", "Endpoint", "Trigger", "handler"]

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
"""A trigger's body is not read; a larger one is refused, since it was surely meant for somebody else."""

MAX_HEADER_BYTES = 16 * 1024

Endpoint = Callable[[Request], Awaitable[Response]]


def handler(
    queue: WorkQueue, *, callback: Callback, errors: ErrorEvents | None = None, **settings: Unpack[SettingsArgs]
) -> Starlette:
    """An ASGI app: GET or POST / runs a round; `/healthz`, `/readyz` and `/metrics` beside it. Mounts in any other.

    `/` answers 200 once the round has ended, or at once if the call was shed; 500 with the error's text if the round
    failed; `/?wait=false` answers 202 at once. `POST /push` takes notifications of a bucket from Pub/Sub (see `push`).
    Put `workqueue.web.bearer.BearerTokens` around it to ask for tokens.

    Args:
        queue: any backend.
        callback: a coroutine function or a plain function, called with a key and its `Attempt`.
        errors: where to tell of failures.
        settings: the fields of `DispatcherSettings`.

    Raises:
        InvalidSettingError: a setting is out of range.
    """
    return Trigger(Setup.of(queue, callback, DispatcherSettings(**settings), errors)).app()


class Trigger:
    """The endpoints of `handler`.

    Args:
        setup: what rounds are made of.
        health: what the probes answer from, when a loop shares it.
        metrics: what answers `/metrics`, when the process has more to show than this.
    """

    def __init__(self, setup: Setup, health: Health | None = None, metrics: Endpoint | None = None) -> None:
        self._setup = setup
        self._alone = health is None
        self.health = health or Health(setup.clock, setup.settings.poll_period, setup.renewer)
        self._period_us = duration_us(setup.settings.trigger_period)
        self._admitted_us: int | None = None
        self._rounds: dict[asyncio.Task[BaseException | None], Round] = {}
        self._push = Push(setup.clock, self._due_us, self._begin_pushed, self._shed)
        counted = metrics_of(setup.queue)
        self._gauges = GaugeRefresher(setup.queue, counted, [setup.metrics], clock=setup.clock)
        self._exposition = Exposition(queues=[counted], dispatchers=[setup.metrics], clock=setup.clock)
        self._metrics = metrics or self._scraped

    def app(self) -> Starlette:
        """The ASGI app. Where lifespan events are sent, gauges are kept fresh, and rounds are drained at the end."""
        routes = [
            Route("/", self.triggered, methods=["GET", "POST"]),
            Route("/push", self.pushed, methods=["POST"]),
            Route("/healthz", self.live),
            Route("/readyz", self.ready),
            Route("/metrics", self._metrics),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    async def triggered(self, request: Request) -> Response:
        """Run a round, unless one was just started."""
        refusal = _refusal(request)
        if refusal is not None:
            return refusal
        if self.health.draining:
            return PlainTextResponse("draining\n", 503)
        if not self._admit():
            return PlainTextResponse("shed: a round has just started\n")
        running = self._start()
        if request.query_params.get("wait", "true").lower() in ("false", "0"):
            return PlainTextResponse("started\n", 202)
        await asyncio.wait((running,))  # not awaited itself: our cancellation would be the round's
        error = running.result()
        return PlainTextResponse("ok\n") if error is None else PlainTextResponse(f"{_text(error)}\n", 500)

    async def pushed(self, request: Request) -> Response:
        """Run a round for what a bucket's Pub/Sub subscription pushed (see `push`)."""
        refusal = _refusal(request)
        if refusal is not None:
            return refusal
        return PlainTextResponse("draining\n", 503) if self.health.draining else await self._push.pushed(request)

    async def live(self, request: Request) -> Response:
        """200 while the process works, else 503 with the reason."""
        return _probe(self.health.why_dead())

    async def ready(self, request: Request) -> Response:
        """200 while calls are welcome, else 503 with the reason."""
        if self._alone and self.health.why_unready() and not self.health.draining:
            await self._ask_store()
        return _probe(self.health.why_unready())

    async def _ask_store(self) -> None:
        """See whether the store is back: no loop does, and no round comes to who is not ready."""
        try:
            await self._setup.queue.counts()
        except StoreError as error:
            self.health.store_failed(error)
        else:
            self.health.store_answered()

    async def drain(self) -> None:
        """Admit no more rounds; let those under way run for `drain_timeout`, then cancel them and wait."""
        self.health.draining = True
        self._push.drain()
        seconds = self._setup.settings.drain_timeout.total_seconds()
        with contextlib.suppress(TimeoutError):
            await within(self._setup.clock, seconds, all_done(self._rounds))
        self.hurry()
        await all_done(self._rounds)

    def hurry(self) -> None:
        """Cancel the callbacks of the rounds under way; their keys are released."""
        for round_ in self._rounds.values():
            round_.stop()

    def _admit(self) -> bool:
        if self._due_us() > 0:
            self._shed()
            return False
        self._setup.metrics.triggers["dispatched"] += 1
        self._admitted_us = self._setup.clock.steady_us()
        return True

    def _due_us(self) -> int:
        """Microseconds until the next round may be admitted."""
        since_us = self._setup.clock.steady_us() - self._admitted_us if self._admitted_us is not None else None
        return 0 if since_us is None else max(self._period_us - since_us, 0)

    def _shed(self) -> None:
        self._setup.metrics.triggers["shed"] += 1

    def _begin_pushed(self) -> asyncio.Task[BaseException | None]:
        self._admit()
        return self._start()

    def _start(self) -> asyncio.Task[BaseException | None]:
        round_ = Round(self._setup)
        running = asyncio.get_running_loop().create_task(self._run(round_))
        self._rounds[running] = round_
        running.add_done_callback(self._rounds.pop)
        return running

    async def _run(self, round_: Round) -> BaseException | None:
        try:
            await round_.run()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - even a KeyboardInterrupt fails a round only: the app is not ours
            log.error("round failed: %s", _text(error), extra={"queue": self._setup.metrics.name})
            self.health.store_failed(error)
            return error
        self.health.store_answered()
        return None

    async def _scraped(self, request: Request) -> Response:
        self._gauges.nudge()  # without waiting: a store that is down must not take the other metrics with it
        return await self._exposition.scraped(request)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            async with self._gauges:
                yield
        finally:
            await self.drain()


def _refusal(request: Request) -> Response | None:
    if sum(len(name) + len(value) for name, value in request.headers.raw) > MAX_HEADER_BYTES:
        return PlainTextResponse(f"more than {MAX_HEADER_BYTES} bytes of headers\n", 431)
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        return PlainTextResponse(f"a trigger takes a body of at most {MAX_BODY_BYTES} bytes\n", 413)
    return None


def _probe(trouble: str) -> Response:
    return PlainTextResponse(f"{trouble}\n", 503) if trouble else PlainTextResponse("ok\n")


def _text(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_text(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"
