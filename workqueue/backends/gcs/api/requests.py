"""Stage 2: requests to the JSON API of Cloud Storage: credentials, tries, and what an answer means for the caller.

A request whose answer got lost may have been processed. Every request that changes something is pinned to what it
changes, so sending it again is safe. `Answer.resent` says that an earlier try may already have done it; generations and
tokens show the caller whether it did.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

import aiohttp
from yarl import URL

from workqueue.backends.gcs.address import GCSSettings
from workqueue.backends.gcs.api.credentials import Credentials, TokenSource, ambient
from workqueue.backends.gcs.api.store_time import StoreTime
from workqueue.errors import QueueClosedError, StoreUnavailableError, StoreUnusableError

__all__ = ["HTTP", "Answer", "NotAllowedError", "RefusedError"]

log = logging.getLogger(__name__)

_NOT_SENT, _NOT_ANSWERED = -1, 0  # in place of a status
_BAD = HTTPStatus.BAD_REQUEST
_BUSY = frozenset({_NOT_SENT, _NOT_ANSWERED, 408, 429, 500, 502, 503, 504})
_JUDGED_BY_CALLER = frozenset({404, 412})
_LIMIT_REASONS = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
_DELETE_TRIES = 10
_LONGEST_PAUSE_SECONDS = 30.0
_CONNECT_SECONDS, _SILENCE_SECONDS = 5, 10


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


@dataclass(frozen=True, slots=True)
class _Tried:
    """What came of sending a request once; `bearer` is the token that it carried."""

    status: int
    body: bytes = b""
    why: str = ""
    bearer: str = ""

    @property
    def is_throttled(self) -> bool:
        return self.status == HTTPStatus.TOO_MANY_REQUESTS

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered otherwise; some limits come as 403, with a reason that says so."""
        is_limit = self.status == HTTPStatus.FORBIDDEN and _LIMIT_REASONS & _reasons(self.body)
        return self.status in _BUSY or bool(is_limit)

    @property
    def may_be_done(self) -> bool:
        """Whether the request may have been processed: what is throttled is refused, anything else may have been."""
        return self.status != _NOT_SENT and not self.is_throttled


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

    def __init__(self, settings: GCSSettings, time: StoreTime, tokens: TokenSource | None = None) -> None:
        self._settings = settings
        self._time = time
        self._tokens = tokens
        self._credentials: Credentials | None = None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make ready, unless it is; nothing is sent yet.

        Raises:
            StoreUnusableError: there are no usable credentials.
        """
        if self._session is not None:
            return
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._settings.connections),
            timeout=aiohttp.ClientTimeout(
                total=self._settings.timeout.total_seconds(), sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS
            ),
            middlewares=(_send_once,),
        )
        try:
            if not self._settings.anonymous:
                self._credentials = Credentials(self._tokens or ambient(self._settings.impersonate, session))
        except BaseException:
            await session.close()
            raise
        self._session = session

    async def close(self) -> None:
        """Close every connection."""
        if self._credentials is not None:
            self._credentials.close()
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
        if self._settings.user_project:
            path += f"{'&' if '?' in path else '?'}userProject={quote(self._settings.user_project, safe='')}"
        resent, is_new = False, False
        for number in itertools.count(1):
            tried = await self._try(method, path, body, content_type)
            if tried.status == HTTPStatus.UNAUTHORIZED and self._credentials is not None and not is_new:
                self._credentials.drop(tried.bearer)  # it was revoked, or is older than it was said to become
                is_new = True
                continue
            if not tried.may_pass:
                return self._judged(tried, resent)
            most = max(_DELETE_TRIES, self._settings.tries) if method == "DELETE" and tried.is_throttled else 0
            if number >= max(most, self._settings.tries):
                raise StoreUnavailableError(f"Cloud Storage did not do it in {number} tries: {tried.why}")
            resent = resent or tried.may_be_done
            log.debug("%s %s: %s, trying again", method, path, tried.why)
            # Real time, whatever clock the queue was given: it paces the network and decides nothing.
            await asyncio.sleep(_pause(self._settings.first_pause, number))
        raise AssertionError("unreachable")

    async def _try(self, method: str, path: str, body: bytes | None, content_type: str) -> _Tried:
        """Send a request once."""
        if self._session is None or self._session.closed:
            raise QueueClosedError
        headers = {"Content-Type": content_type} if body is not None else {}
        bearer = ""
        if self._credentials is not None:
            try:
                bearer = await self._credentials.bearer()
            except StoreUnavailableError as error:
                return _Tried(_NOT_SENT, why=str(error))
            headers["Authorization"] = f"Bearer {bearer}"
        sent_us = self._time.steady_us()
        url = URL(self._settings.endpoint + path, encoded=True)
        try:
            async with self._session.request(method, url, data=body, headers=headers, allow_redirects=False) as answer:
                self._time.heard(answer.headers.get("Date", ""), sent_us, self._time.steady_us())
                status, said = answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _Tried(_NOT_ANSWERED, why=f"{type(error).__name__}: {error}")
        return _Tried(status, said, f"{status} {_message(said)}" if status >= _BAD else "", bearer)

    def _judged(self, tried: _Tried, resent: bool) -> Answer:
        answer = Answer(tried.status, tried.body, resent)
        if answer.ok or tried.status in _JUDGED_BY_CALLER:
            return answer
        bucket, said = f"gs://{self._settings.bucket}", _message(tried.body)
        if tried.status == HTTPStatus.UNAUTHORIZED:
            raise StoreUnusableError(f"{bucket}: the credentials are not accepted: {said}")
        if tried.status == HTTPStatus.FORBIDDEN:
            raise NotAllowedError(f"{bucket}: not allowed: {said}")
        if tried.status == HTTPStatus.BAD_REQUEST and "required" in _reasons(tried.body):  # we leave out nothing else
            raise StoreUnusableError(f"{bucket}: {said} Add user_project=PROJECT to the gs:// URL")
        kind = RefusedError if _reasons(tried.body) else StoreUnusableError
        raise kind(f"{bucket}: Cloud Storage answered {tried.status}: {said}")


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a DELETE again by itself: the second answer, 404, would look like a lost lease."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _UnansweredError(_line(error)) from error


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


def _reasons(body: bytes) -> set[str]:
    """Why Cloud Storage refuses a request, in its words; none where it was not Cloud Storage that answered."""
    errors = _error(body).get("errors")
    return {str(item.get("reason")) for item in errors if isinstance(item, dict)} if isinstance(errors, list) else set()


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]
