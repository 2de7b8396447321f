"""The console as an ASGI app: which page is where, and what is answered when a page cannot be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from workqueue.clock import SystemClock
from workqueue.errors import InvalidKeyError, InvalidOptionsError, InvalidSettingError, StoreError, WorkQueueError
from workqueue.fallbacks import with_fallbacks
from workqueue.interface import WorkQueue
from workqueue.safe_text import describe
from workqueue.web.console import acting, looking, sweeping
from workqueue.web.console.admission import Admission
from workqueue.web.console.doors import Doors
from workqueue.web.console.forwarded import Forwarded
from workqueue.web.console.guard import Guard
from workqueue.web.console.login import OIDCLogin
from workqueue.web.console.rendering import asset, compile_templates
from workqueue.web.console.sessions import Sessions
from workqueue.web.console.settings import ConsoleSettings
from workqueue.web.console.visit import Visit
from workqueue.web.console.watched import AskDispatchers, Watched

__all__ = ["Console"]

log = logging.getLogger(__name__)

_Page = Callable[[Visit], Awaitable[Response]]
_SETTINGS = ConsoleSettings()

# The patience of a store is made for dispatchers. Whoever waits for a page wants to know by now, and it looks again.
_PATIENCE_SECONDS = 5.0
_DOWN = "The store does not answer"


class Console:
    """Queues in the browser; an async context manager, and an ASGI app while it is entered.

    Args:
        queues: opened queues by the name that each has here; one switcher shows them all.
        settings: how it behaves.
        admission: who may come in; None = anybody, as an operator: for loopback alone.
        login: the way in by an OIDC issuer.
        dispatchers: asks those that are known how they fare; None = what only they know is unknown.

    Raises:
        InvalidSettingError: there is no queue.
    """

    def __init__(
        self,
        queues: Mapping[str, WorkQueue],
        settings: ConsoleSettings = _SETTINGS,
        admission: Admission | None = None,
        login: OIDCLogin | None = None,
        dispatchers: AskDispatchers | None = None,
    ) -> None:
        if not queues:
            raise InvalidSettingError("a console takes at least one queue")
        self._queues = {
            name: Watched(name, with_fallbacks(queue), settings.sample_period, dispatchers)
            for name, queue in queues.items()
        }
        self._watching: list[asyncio.Task[None]] = []
        sessions = Sessions(SystemClock(), settings.session_lasts)
        pages = Starlette(routes=_routes(Doors(admission, login)))
        guard = Guard(pages, self._queues, settings, sessions, admission)
        self.app: ASGIApp = Forwarded(guard, settings.public_url, settings.trusted_proxies)

    async def __aenter__(self) -> Self:
        compile_templates()
        self._watching = [
            asyncio.create_task(each.watch(), name=f"console-{name}") for name, each in self._queues.items()
        ]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._watching:
            task.cancel()
        for watched in self._queues.values():
            await watched.sweeps.close()
        for task in self._watching:
            with suppress(asyncio.CancelledError):
                await task


def _routes(doors: Doors) -> list[Route]:
    """Every page."""
    pages: list[tuple[str, str, _Page]] = [
        ("GET", "/", looking.first),
        ("GET", "/q/{queue}", looking.overview),
        ("GET", "/q/{queue}/keys/{place}", looking.keys),
        ("GET", "/q/{queue}/key", looking.key),
        ("POST", "/q/{queue}/act", acting.act),
        ("POST", "/q/{queue}/enqueue", acting.enqueue),
        ("POST", "/q/{queue}/configure", acting.configure),
        ("GET", "/q/{queue}/sweeps", sweeping.sweeps),
        ("POST", "/q/{queue}/sweeps", sweeping.start),
        ("GET", "/q/{queue}/sweeps/{id}", sweeping.sweep),
        ("POST", "/q/{queue}/sweeps/{id}/stop", sweeping.stop),
        ("GET", "/login", doors.show),
        ("POST", "/login", doors.enter),
        ("POST", "/logout", doors.leave),
        ("GET", "/login/issuer", doors.away),
        ("GET", "/login/callback", doors.returned),
    ]
    routes = [Route(path, _endpoint(page), methods=[method]) for method, path, page in pages]
    return [*routes, Route("/static/{name}", _asset), Route("/{path:path}", _endpoint(_nowhere))]


def _endpoint(page: _Page) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        visit: Visit = request.scope["visit"]
        looks = request.method in ("GET", "HEAD") and "queue" in request.path_params
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS if looks else None):
                return await page(visit)
        except KeyError:
            return await _nowhere(visit)
        except (InvalidKeyError, InvalidOptionsError) as error:
            return _trouble(visit, 400, "That cannot be", str(error))
        except TimeoutError:
            return _trouble(visit, 503, _DOWN, f"There was no answer within {_PATIENCE_SECONDS:g} s.")
        except StoreError as error:
            return _trouble(visit, 503, _DOWN, describe(error))
        except WorkQueueError as error:
            return _trouble(visit, 500, "It was not done", describe(error))

    return endpoint


async def _nowhere(visit: Visit) -> Response:
    return _trouble(visit, 404, "There is nothing here", "The queue or the page of this address is not known.")


def _trouble(visit: Visit, status: int, title: str, text: str) -> Response:
    watched = visit.queues.get(visit.request.path_params.get("queue", ""))
    retried = status == 503 and visit.request.method == "GET"
    return visit.page("trouble.html", status, watched=watched, title=title, text=text, retried=retried)


async def _asset(request: Request) -> Response:
    found = asset(request.path_params["name"])
    if found is None:
        return PlainTextResponse("no such file\n", 404)
    content, kind = found
    # Pages name a version of it in the query, which changes with it.
    return Response(content, media_type=kind, headers={"cache-control": "public, max-age=31536000, immutable"})
