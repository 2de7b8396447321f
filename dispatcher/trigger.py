"""Stage 3: rounds on request over HTTP, for schedulers that call a URL; and the probes and metrics beside it.

Callers that ask more often than once in a period are answered without a round: the one that just started has seen their
keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Unpack

from workqueue.extras import importing

with importing("http", "dispatching on HTTP requests"):
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

from dispatcher.callback import Callback
from dispatcher.error_events import ErrorEvents
from dispatcher.gate import RoundGate
from dispatcher.health import Health
from dispatcher.push import Push
from dispatcher.scrape import Scrape
from dispatcher.settings import DispatcherSettings, SettingsArgs
from dispatcher.setup import Setup
from dispatcher.status import Status
from workqueue.errors import StoreError
from workqueue.interface import WorkQueue
from workqueue.telemetry.standing import Standing

__all__ = ["MAX_BODY_BYTES", "MAX_HEADER_BYTES", "Endpoint", "Trigger", "handler"]

MAX_BODY_BYTES = 64 * 1024
"""A trigger's body is not read; a larger one is refused, since it was surely meant for somebody else."""

MAX_HEADER_BYTES = 16 * 1024

Endpoint = Callable[[Request], Awaitable[Response]]


def handler(
    queue: WorkQueue, *, callback: Callback, errors: ErrorEvents | None = None, **settings: Unpack[SettingsArgs]
) -> Starlette:
    """An ASGI app that mounts in any other: GET or POST / runs a round.

    `/healthz`, `/readyz`, `/status` and `/metrics` are beside it.

    `/` answers 200 once the round has ended, or at once if the call was shed; 503 with the reason if the store or the
    target is down, 500 with the error's text if the round failed otherwise; `/?wait=false` answers 202 at once.
    `POST /push` takes notifications of a bucket from Pub/Sub (see `push`).
    Put `workqueue.web.bearer.BearerTokens` around it to ask for tokens.

    Args:
        queue: any backend.
        callback: a coroutine function or a plain function, called with a key and its `Attempt`.
        errors: where error events go.
        settings: the fields of `DispatcherSettings`.

    Raises:
        InvalidSettingError: a setting is out of range, or the callback cannot be called so.
    """
    return Trigger(Setup.of(queue, callback, DispatcherSettings(**settings), errors)).app()


class Trigger:
    """The endpoints of `handler`.

    Args:
        setup: what rounds are made of.
        health: what the probes answer from, when a loop shares it.
    """

    def __init__(self, setup: Setup, health: Health | None = None) -> None:
        self._setup = setup
        self._alone = health is None
        self.health = health or Health(setup)
        self._gate = RoundGate(setup, self.health)
        self._push = Push(self._gate, self.health)
        self._status = Status(setup, self.health)

    def app(self, metrics: Endpoint | None = None) -> Starlette:
        """The ASGI app. Where lifespan events are sent, gauges are kept fresh, and rounds are drained at the end.

        Args:
            metrics: what answers `/metrics`, when the process has more to show than this queue.
        """
        gauges: AbstractAsyncContextManager[object] = nullcontext()
        if metrics is None:
            gauges = scrape = Scrape(self._setup)
            metrics = scrape.scraped

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            try:
                async with gauges:
                    yield
            finally:
                await self.drain()

        triggered = Route("/", self.triggered, methods=["GET", "POST"])
        triggered.methods = {"GET", "POST"}  # Starlette adds HEAD, by which monitors look whether a page is there
        routes = [
            triggered,
            Route("/push", self.pushed, methods=["POST"]),
            Route("/healthz", self.live),
            Route("/readyz", self.ready),
            Route("/status", self.status),
            Route("/metrics", metrics),
        ]
        return Starlette(routes=routes, lifespan=lifespan)

    async def triggered(self, request: Request) -> Response:
        """Run a round, unless one was just started."""
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        turn = self._gate.admit()
        if turn is None:
            return PlainTextResponse("shed: a round has just started\n")
        return await turn.answer(wait=_waits(request))

    async def pushed(self, request: Request) -> Response:
        """Run a round for what a bucket's Pub/Sub subscription pushed (see `push`)."""
        refusal = self._refusal(request)
        return await self._push.pushed(request, wait=_waits(request)) if refusal is None else refusal

    async def live(self, request: Request) -> Response:
        """200 while the process works, else 503 with the reason."""
        return _probe(self.health.why_dead())

    async def ready(self, request: Request) -> Response:
        """200 while calls are welcome, and whether the target is down; else 503 with the reason."""
        if self._alone and self.health.why_unready() and not self.health.draining:
            await self._ask_store()
        return _probe(self.health.why_unready(), self.health.remark())

    async def status(self, request: Request) -> Response:
        """What this dispatcher is about, as JSON (see `Status`)."""
        return JSONResponse(self._status.document(), headers={"cache-control": "no-store"})

    async def standings(self) -> list[Standing]:
        """How this dispatcher fares, for a console beside it."""
        return [Standing.read("this dispatcher", self._status.document())]

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
        await self._gate.drain()

    def hurry(self) -> None:
        """Cancel the callbacks of the rounds under way; their keys are released."""
        self._gate.hurry()

    def _refusal(self, request: Request) -> Response | None:
        if sum(len(name) + len(value) for name, value in request.headers.raw) > MAX_HEADER_BYTES:
            return PlainTextResponse(f"more than {MAX_HEADER_BYTES} bytes of headers\n", 431)
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return PlainTextResponse(f"a trigger takes a body of at most {MAX_BODY_BYTES} bytes\n", 413)
        return PlainTextResponse("draining\n", 503) if self.health.draining else None


def _waits(request: Request) -> bool:
    """Whether the caller waits for the end of the round."""
    return request.query_params.get("wait", "true").lower() not in ("false", "0")


def _probe(trouble: str, remark: str = "") -> Response:
    if trouble:
        return PlainTextResponse(f"{trouble}\n", 503)
    return PlainTextResponse(f"ok; {remark}\n" if remark else "ok\n")
