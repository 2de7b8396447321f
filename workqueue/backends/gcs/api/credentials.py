"""Stage 2: the bearer tokens that go onto requests: one for all of them, renewed ahead, dropped when refused.

The token service has bad moments, too. A token is renewed in the middle of its life, so that an outage of the service
shorter than the other half is not noticed; a longer one makes the store unavailable, which passes. Only a refusal is
for good.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol, cast

import aiohttp

from workqueue.errors import StoreUnavailableError, StoreUnusableError

__all__ = ["SCOPE", "Credentials", "Token", "TokenSource", "ambient"]

log = logging.getLogger(__name__)

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_SCOPE_TO_ACT_AS_ANOTHER = "https://www.googleapis.com/auth/cloud-platform"  # who may only use storage may not do that

_TIMEOUT_SECONDS = 10
_RENEWED_AT = 0.5  # of a token's life
_GOOD_FOR = 0.95
_PAUSE_SECONDS = 30.0  # after a renewal that failed
_PASSING_ANSWERS = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class Token(Protocol):
    """A bearer token, and for how many seconds it is good."""

    @property
    def value(self) -> str: ...
    @property
    def expires_in(self) -> int: ...


class TokenSource(Protocol):
    """Where tokens come from; `gcloud.aio.auth.Token` is one. Each call asks anew."""

    async def refresh(self, *, timeout: int) -> Token: ...


class Credentials:
    """The token of one event loop.

    Args:
        source: where tokens come from.
        seconds: a clock that never goes back.
    """

    def __init__(self, source: TokenSource, seconds: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._seconds = seconds
        self._bearer = ""
        self._asked = self._failed = float("-inf")
        self._lasts = 0.0
        self._fetching: asyncio.Task[None] | None = None

    async def bearer(self) -> str:
        """A token that is good for now.

        Raises:
            StoreUnavailableError: the token service cannot be reached, or is busy.
            StoreUnusableError: it refuses the credentials.
        """
        age = self._seconds() - self._asked
        is_good = self._bearer != "" and age < _GOOD_FOR * self._lasts
        if not is_good:
            fetching = self._fetch()
            await asyncio.wait((fetching,))  # all wait for one, and whoever is cancelled does not cancel it
            fetching.result()
        elif age >= _RENEWED_AT * self._lasts and self._seconds() >= self._failed + _PAUSE_SECONDS:
            self._fetch().add_done_callback(_log_failure)
        return self._bearer

    def drop(self, bearer: str) -> None:
        """Forget a token that the store refused, unless there is another by now."""
        if self._bearer == bearer:
            self._bearer = ""

    def close(self) -> None:
        """Ask for nothing any more."""
        if self._fetching is not None:
            self._fetching.cancel()

    def _fetch(self) -> asyncio.Task[None]:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.get_running_loop().create_task(self._ask(), name="gcs-token")
            self._fetching.add_done_callback(_retrieve)
        return self._fetching

    async def _ask(self) -> None:
        asked = self._seconds()
        try:
            token = await self._source.refresh(timeout=_TIMEOUT_SECONDS)
        except Exception as error:
            self._failed = self._seconds()
            if _is_passing(error):
                raise StoreUnavailableError(f"no token from Google's token service: {_line(error)}") from error
            raise StoreUnusableError(f"Google's token service refuses the credentials: {_line(error)}") from error
        lasts = _seconds_of(token)
        if not lasts:
            self._failed = self._seconds()
            raise StoreUnavailableError("Google's token service gave an answer that holds no token")
        self._bearer, self._asked, self._lasts = token.value, asked, lasts


def ambient(impersonate: str, session: aiohttp.ClientSession) -> TokenSource:
    """The credentials of this machine, or of `GOOGLE_APPLICATION_CREDENTIALS`.

    Args:
        impersonate: the service account to act as; empty = none.
        session: carries the requests to the token services.

    Raises:
        StoreUnusableError: they cannot be read.
    """
    from gcloud.aio.auth import Token as Ambient  # half a second that an emulator does not need

    scope = _SCOPE_TO_ACT_AS_ANOTHER if impersonate else SCOPE
    try:
        found = Ambient(session=session, scopes=[scope], target_principal=impersonate or None)
    except Exception as error:
        raise StoreUnusableError(f"the credentials cannot be read: {_line(error)}") from error
    _name_source(found.service_data)
    return cast(TokenSource, found)


def _name_source(account: dict[str, Any]) -> None:
    """Say of a workload identity, as gcloud writes it, whether somebody else's token is in a file or at a URL.

    gcloud-aio-auth sees that by itself from 5.6 on; Python 3.11.0 to 3.11.2 (Debian 12) get none after 5.5.
    """
    source = account.get("credential_source")
    if isinstance(source, dict) and not source.keys() & {"type", "environment_id", "executable"}:
        kind = next((kind for kind in ("file", "url") if kind in source), None)
        source.update({"type": kind} if kind else {})


def _is_passing(error: Exception) -> bool:
    """Whether the same question may be answered later: the service could not be asked, or gave no answer of its own."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in _PASSING_ANSWERS or not HTTPStatus.BAD_REQUEST <= error.status < 500
    return isinstance(error, aiohttp.ClientError | OSError | json.JSONDecodeError | UnicodeError | KeyError | TypeError)


def _seconds_of(token: Token) -> float:
    """For how long a token is good, of whatever type that came; 0 = it is none that could go onto a request."""
    try:
        lasts = float(token.expires_in)
    except (TypeError, ValueError):
        return 0.0
    is_text = isinstance(token.value, str) and token.value.isascii() and token.value.isprintable()
    return lasts if is_text and token.value.strip() and 0 < lasts < math.inf else 0.0


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not report it: whoever waited may be cancelled


def _log_failure(task: asyncio.Task[None]) -> None:
    """Nobody waits for a renewal ahead of time."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.warning("%s; the token that there is will be used for as long as it is good", error)


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]
