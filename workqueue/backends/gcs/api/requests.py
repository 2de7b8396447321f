"""Stage 2: requests to the JSON API of Cloud Storage: credentials, tries, and what an answer means for the caller.

A request whose answer got lost may have been processed. Every request that changes something is pinned to what it
changes, so sending it again is safe. `Answer.resent` says that an earlier try may already have done it; generations and
tokens show the caller whether it did.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import aiohttp
from yarl import URL

from workqueue.backends.gcs.address import GCSSettings
from workqueue.backends.gcs.api.store_time import StoreTime
from workqueue.errors import QueueClosedError, StoreUnavailableError, StoreUnusableError

__all__ = ["HTTP", "SCOPE", "Answer", "NotAllowedError", "RefusedError", "Tokens"]

log = logging.getLogger(__name__)

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_SCOPE_TO_ACT_AS_ANOTHER = "https://www.googleapis.com/auth/cloud-platform"  # who may only use storage may not do that

_THROTTLED = HTTPStatus.TOO_MANY_REQUESTS
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_JUDGED_BY_CALLER = frozenset({404, 412})
_LIMIT_REASONS = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
_DELETE_TRIES = 10
_LONGEST_PAUSE_SECONDS = 30.0
_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5, sock_read=10)


class Tokens(Protocol):
    """Where bearer tokens come from; `gcloud.aio.auth.Token` is one."""

    async def get(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said: success, or 404 or 412.

    `resent`: an earlier try was possibly processed, too.
    """

    status: int
    body: bytes
    resent: bool

    @property
    def ok(self) -> bool:
        return self.status < HTTPStatus.MULTIPLE_CHOICES


class RefusedError(StoreUnusableError):
    """The store refuses a request for what it is about, and would refuse it again."""


class NotAllowedError(StoreUnusableError):
    """The credentials are good, but lack a permission; the message says which."""


class _UnansweredError(aiohttp.ClientError):
    """The connection broke; the request may have been processed."""


class HTTP:
    """Sends requests to one bucket's server, from one event loop.

    Args:
        settings: the server, and how often to try.
        time: learns from the `Date` of every answer.
        tokens: where bearer tokens come from; None = the ambient credentials, unless `settings.anonymous`.
    """

    def __init__(self, settings: GCSSettings, time: StoreTime, tokens: Tokens | None = None) -> None:
        self._settings = settings
        self._time = time
        self._tokens = tokens
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make ready; nothing is sent yet.

        Raises:
            StoreUnusableError: there are no usable credentials.
        """
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._settings.connections),
            timeout=_TIMEOUT,
            middlewares=(_send_once,),
        )
        try:
            if self._tokens is None and not self._settings.anonymous:
                self._tokens = _ambient(self._settings.impersonate, session)
        except BaseException:
            await session.close()
            raise
        self._session = session

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json"
    ) -> Answer:
        """Send a request, again if need be.

        Args:
            method: the HTTP method.
            path: with its query, percent-encoded.
            body: what is sent with it.
            content_type: the body's.

        Raises:
            StoreUnavailableError: no try was answered, or the server is busy.
            StoreUnusableError: an operator must act; the message says what the server said.
            QueueClosedError: `close` was called meanwhile.
        """
        resent, tried = False, 0
        while True:
            tried += 1
            try:
                status, answer = await self._send(method, path, body, content_type)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                status, answer, why = 0, b"", f"{type(error).__name__}: {error}"
            else:
                if status not in _BUSY and not _is_limit(status, answer):
                    return self._judged(status, answer, resent)
                why = f"{status} {_message(answer)}"
            most = max(_DELETE_TRIES, self._settings.tries) if method == "DELETE" and status == _THROTTLED else 0
            if tried >= max(most, self._settings.tries):
                raise StoreUnavailableError(f"Cloud Storage did not do it in {tried} tries: {why}")
            resent = resent or status != _THROTTLED  # throttled means refused; anything else may have been done
            log.debug("%s %s: %s, trying again", method, path, why)
            # Real time, whatever clock the queue was given: it paces the network and decides nothing.
            await asyncio.sleep(_pause(self._settings.first_pause, tried))

    async def _send(self, method: str, path: str, body: bytes | None, content_type: str) -> tuple[int, bytes]:
        if self._session is None or self._session.closed:
            raise QueueClosedError
        headers = {"Content-Type": content_type} if body is not None else {}
        if self._tokens is not None and not self._settings.anonymous:
            headers["Authorization"] = f"Bearer {await self._token()}"
        sent_us = self._time.steady_us()
        url = URL(self._settings.endpoint + path, encoded=True)
        async with self._session.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
            self._time.heard(response.headers.get("Date", ""), sent_us, self._time.steady_us())
            return response.status, await response.read()

    async def _token(self) -> str:
        assert self._tokens is not None
        try:
            token = await self._tokens.get()
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            raise StoreUnavailableError(f"no token from Google's token service: {_line(error)}") from error
        except Exception as error:
            raise StoreUnusableError(f"Google's token service refuses the credentials: {_line(error)}") from error
        return token or ""

    def _judged(self, status: int, body: bytes, resent: bool) -> Answer:
        answer = Answer(status, body, resent)
        if answer.ok or status in _JUDGED_BY_CALLER:
            return answer
        said = _message(body)
        bucket = f"gs://{self._settings.bucket}"
        if status == HTTPStatus.UNAUTHORIZED:
            raise StoreUnusableError(f"{bucket}: the credentials are not accepted: {said}")
        if status == HTTPStatus.FORBIDDEN:
            raise NotAllowedError(f"{bucket}: not allowed: {said}")
        raise RefusedError(f"{bucket}: Cloud Storage answered {status}: {said}")


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a DELETE again by itself: the second answer, 404, would look like a lost lease."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _UnansweredError(_line(error)) from error


def _ambient(impersonate: str, session: aiohttp.ClientSession) -> Tokens:
    from gcloud.aio.auth import Token  # half a second that an emulator does not need

    scope = _SCOPE_TO_ACT_AS_ANOTHER if impersonate else SCOPE
    try:
        tokens: Tokens = Token(session=session, scopes=[scope], target_principal=impersonate or None)
    except Exception as error:
        raise StoreUnusableError(f"the credentials cannot be read: {_line(error)}") from error
    return tokens


def _pause(first: float, tried: int) -> float:
    return float(min(first * 2 ** (tried - 1), _LONGEST_PAUSE_SECONDS) * (1 + random.random()))


def _error(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {"message": found}


def _message(body: bytes) -> str:
    """The first line of what the server said, for people."""
    text = str(_error(body).get("message", "")) or body[:200].decode("utf-8", "replace")
    return text.strip().partition("\n")[0]


def _is_limit(status: int, body: bytes) -> bool:
    """Whether a 403 means a limit, as its reason says, and no missing permission."""
    errors = _error(body).get("errors") if status == HTTPStatus.FORBIDDEN else None
    return bool(errors) and isinstance(errors, list) and any(item.get("reason") in _LIMIT_REASONS for item in errors)


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]
