"""HTTP posts, to a handler or to a broker: which URLs, what is shown to them, and when to come again."""

from __future__ import annotations

import math
from copy import copy
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from workqueue.access.security import ClientSecurity
from workqueue.access.urls import http_url
from workqueue.errors import InvalidSettingError
from workqueue.options import check_type
from workqueue.safe_text import shown_url

if TYPE_CHECKING:
    from aiohttp import ClientSession, ClientTimeout
    from aiohttp.client import _RequestContextManager
    from cloudevents.core.bindings.http import HTTPMessage

__all__ = ["Poster", "retry_after"]

_CONNECT_SECONDS = 10.0
_LONGEST = timedelta(days=365)


class Poster:
    """Posts to one URL. It follows no redirect: what is shown to one host is not meant for another.

    Args:
        url: where to.
        what: what it is for, for errors.
        security: whom to trust, and what to show; a renewed certificate is noticed.
        proxy: the URL of an HTTP proxy to go through; None = none.

    Raises:
        InvalidSettingError: `url` or `proxy` is none, or `security` does not fit the URL.
    """

    def __init__(self, url: str, what: str, security: ClientSecurity, proxy: str | None = None) -> None:
        check_type("a URL", url, str, f"text such as https://host/, {what}")
        parts = http_url(url, what)
        tls = parts.scheme == "https"
        security.check_address(parts.hostname or "", tls=tls)
        if parts.username is not None and security.token is not None:
            raise InvalidSettingError(f"{shown_url(url)!r} has a user, and there is a token to show: give one of them")
        if proxy is not None:
            http_url(proxy, "of a proxy")
        self._url = url
        self._token = security.token
        self._contexts = security.contexts() if tls else None
        self._proxy = proxy
        self._session: ClientSession | None = None

    async def post(self, message: HTTPMessage) -> _RequestContextManager:
        """The request, to be entered for its answer; there is no limit to how long that takes.

        Raises:
            StoreUnavailableError: there is no token at the moment.
        """
        headers = message.headers
        if self._token is not None:
            headers = {**headers, "authorization": f"Bearer {await self._token.token()}"}
        options: Any = {} if self._contexts is None else {"ssl": self._contexts.current()}
        return self._opened().post(
            self._url, data=message.body, headers=headers, allow_redirects=False, proxy=self._proxy, **options
        )

    def another(self) -> Poster:
        """One that posts to the same URL, over connections of its own."""
        other = copy(self)
        other._session = None
        return other

    async def close(self) -> None:
        """Close the connections; posts under way break off. A later post opens new ones."""
        if self._session is not None:
            closing, self._session = self._session, None
            await closing.close()

    def _opened(self) -> ClientSession:
        if self._session is None:
            from aiohttp import ClientSession, DummyCookieJar, TCPConnector  # half a second to import

            connector = TCPConnector(limit=0)  # who posts limits how many there are
            self._session = ClientSession(connector=connector, timeout=_timeout(), cookie_jar=DummyCookieJar())
        return self._session


def _timeout() -> ClientTimeout:
    from aiohttp import ClientTimeout

    return ClientTimeout(total=None, connect=_CONNECT_SECONDS)


def retry_after(value: str, now: datetime) -> timedelta | None:
    """The delay that `Retry-After` asks for, at least a second; None if it asks for none. Source: RFC 9110, 10.2.3."""
    try:
        if value.isascii() and value.isdigit():
            delay = timedelta(seconds=min(int(value[:12]), _LONGEST.total_seconds()))
        else:
            delay = parsedate_to_datetime(value).astimezone(UTC) - now
    except (ValueError, OverflowError):
        return None
    return min(max(timedelta(seconds=math.ceil(delay.total_seconds())), timedelta(seconds=1)), _LONGEST)
