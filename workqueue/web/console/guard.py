"""What stands before every page: who it is, whether a page of ours sent the form, and what the browser must not do."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workqueue.access.tokens import TokenCheckUnavailableError, TokenRefusedError, bearer_token
from workqueue.errors import InvalidOptionsError
from workqueue.web.console.admission import Admission, Role, Visitor
from workqueue.web.console.links import address, values_of
from workqueue.web.console.sessions import COOKIE, Sessions, fresh_secret
from workqueue.web.console.settings import ConsoleSettings
from workqueue.web.console.visit import Visit
from workqueue.web.console.watched import Watched

__all__ = ["Guard", "set_cookie"]

log = logging.getLogger(__name__)

_HEADERS = {
    # No inline script or style, nothing from elsewhere, no frames: what a key or an error says stays text.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: with that, browsers say `Origin: null` of our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_OPEN = re.compile(r"/login(/.*)?|/static/.*")
_COOKIE_TEXT = re.compile(r"[\w-]{43}")
_MOST_BYTES = 1024 * 1024  # a payload of 256 KiB, each byte of it escaped, and what goes with it
_PORTS = {"http": 80, "https": 443}


class Guard:
    """ASGI middleware: puts a `Visit` into the scope of every request that may go on.

    Args:
        app: the pages.
        queues: what they are about.
        settings: what was decided at the start.
        sessions: what is remembered of browsers.
        admission: who may come in; None = anybody, as an operator.
    """

    def __init__(
        self,
        app: ASGIApp,
        queues: Mapping[str, Watched],
        settings: ConsoleSettings,
        sessions: Sessions,
        admission: Admission | None,
    ) -> None:
        self._app = app
        self._queues = queues
        self._settings = settings
        self._sessions = sessions
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request = Request(scope, receive)
        known = cookie_parser(request.headers.get("cookie", "")).get(COOKIE, "")
        cookie = known if _COOKIE_TEXT.fullmatch(known) else fresh_secret()
        answer = await self._answer(request, cookie)
        # Not for a form: that of another site comes without the cookie, and a new one would end the session.
        new = [] if known == cookie or request.method == "POST" else _cookie_headers(request, cookie)
        return await answer(scope, receive, _with_headers(send, new))

    async def _answer(self, request: Request, cookie: str) -> ASGIApp:
        """The app if the request may go on, with its visit in the scope; else what is answered instead."""
        hosts = self._settings.hosts
        if hosts and (request.url.hostname or "") not in hosts:
            return PlainTextResponse("this console is reached by another name\n", 421)
        try:
            visitor = await self._visitor(request, cookie)
            query = values_of(request.scope["query_string"])
            form = values_of(await _body(request)) if request.method == "POST" else {}
        except TokenRefusedError as error:
            return PlainTextResponse(f"{error}\n", 401, {"www-authenticate": "Bearer"})
        except TokenCheckUnavailableError as error:
            return PlainTextResponse(f"{error}\n", 503)
        except InvalidOptionsError as error:
            return PlainTextResponse(f"{error}\n", 400)
        visit = Visit(request, visitor, cookie, query, form, self._queues, self._settings, self._sessions)
        refusal = self._refusal(visit)
        if refusal is not None:
            return refusal
        request.scope["visit"] = visit
        return self._app

    async def _visitor(self, request: Request, cookie: str) -> Visitor | None:
        """Who it is; None = somebody who has not logged in.

        Raises:
            TokenRefusedError: a token came with the request, and it opens nothing.
            TokenCheckUnavailableError: it could not be checked.
        """
        if self._admission is None:
            peer = request.client.host if request.client is not None else "nowhere"
            return Visitor(f"anybody at {peer}", Role.OPERATOR)
        authorizations = request.headers.getlist("authorization")
        if authorizations:
            return await self._admission.admit(bearer_token(authorizations))
        session = self._sessions.logins.get(cookie)
        if session is None or not session.token:
            return session.visitor if session is not None else None
        try:
            return await self._admission.admit(session.token)
        except TokenRefusedError:  # it was taken off the list since
            self._sessions.logins.take(cookie)
            return None

    def _refusal(self, visit: Visit) -> Response | None:
        request, path = visit.request, _path_within(visit)
        is_open, posts = _OPEN.fullmatch(path) is not None, request.method not in ("GET", "HEAD")
        if visit.visitor is None and not is_open:
            if posts:
                return PlainTextResponse("log in first\n", 401)
            asked = path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(visit.root + address("login", next=asked), 303)
        if not posts:
            return None
        # Whoever shows a token in a header is no browser that another page sends here.
        if not request.headers.get("authorization") or self._admission is None:
            if not _is_own_origin(request):
                return PlainTextResponse("another page sent this form: it was refused\n", 403)
            if not self._sessions.is_form_token(visit.cookie, visit.posted("form_token")):
                return PlainTextResponse("this form is too old: go back, reload the page, and try again\n", 403)
        if not is_open and path != "/logout" and not visit.may_act:
            return PlainTextResponse("you may look here, and not act\n", 403)
        return None


async def _body(request: Request) -> bytes:
    """A form as it was posted; whoever has mounted the console need not limit it.

    Raises:
        InvalidOptionsError: no form of ours is that long.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise InvalidOptionsError(f"a form has at most {_MOST_BYTES} bytes")
    return body


def set_cookie(answer: Response, request: Request, cookie: str) -> None:
    """Let the browser be known by `cookie` from now on. Strict would lose it on the way back from an issuer."""
    path = request.scope.get("root_path", "") or "/"
    answer.set_cookie(COOKIE, cookie, path=path, httponly=True, samesite="lax", secure=request.url.scheme == "https")


def _path_within(visit: Visit) -> str:
    path = str(visit.request.scope["path"])
    return path[len(visit.root) :] if visit.root and path.startswith(visit.root) else path


def _is_own_origin(request: Request) -> bool:
    origin = urlsplit(request.headers.get("origin", ""))
    try:
        shown = origin.scheme, origin.hostname, origin.port or _PORTS.get(origin.scheme)
    except ValueError:
        return False
    own = request.url
    return shown == (own.scheme, own.hostname, own.port or _PORTS.get(own.scheme))


def _cookie_headers(request: Request, cookie: str) -> list[tuple[bytes, bytes]]:
    new = Response()
    set_cookie(new, request, cookie)
    return [each for each in new.raw_headers if each[0] == b"set-cookie"]


def _with_headers(send: Send, new_cookie: list[tuple[bytes, bytes]]) -> Send:
    """Add ours to the headers of an answer, and the cookie of a browser that is new, unless a login gave it another."""
    ours = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message["headers"])
            has_one = any(name == b"set-cookie" for name, _ in headers)
            message = {**message, "headers": [*headers, *ours, *([] if has_one else new_cookie)]}
        await send(message)

    return sent
