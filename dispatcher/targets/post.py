"""Stage 5: a callback that posts each key to an HTTP address as a CloudEvent, and reads the status as an outcome.

The event is in binary mode: its body is the `key_document`, so that a handler needs no CloudEvents library.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Self
from urllib.parse import SplitResult, urlsplit
from uuid import uuid4

from dispatcher.outage import Outage, TargetUnavailableError
from dispatcher.targets.document import MAX_REASON_BYTES, HandlerFailedError, key_document
from workqueue.access.security import ClientSecurity
from workqueue.attempt import Attempt
from workqueue.clock import Clock, SystemClock, from_us
from workqueue.errors import InfrastructureError, InvalidSettingError, NonRetriableError, StoreUnavailableError
from workqueue.outcomes import RequeueAfter
from workqueue.shown import cut, describe, shown_url

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from cloudevents.core.bindings.http import HTTPMessage

__all__ = ["ANSWER_HEADER", "EVENT_TYPE", "HttpCallback", "http_callback", "outcome_of_status", "retry_after"]

EVENT_TYPE = "dev.chainguard.workqueue.process.v1"

ANSWER_HEADER = "workqueue-answer"
"""A handler sets it, to anything, on a 502, 503 or 504 of its own; else a proxy is taken to have answered for it."""

_CONNECT_SECONDS = 10.0
_RETRIED = frozenset({408, 425, 429})
_FROM_PROXIES = frozenset({502, 503, 504})
_LONGEST = timedelta(days=365)


def http_callback(
    url: str, *, source: str = "workqueue", security: ClientSecurity | None = None, clock: Clock | None = None
) -> HttpCallback:
    """A callback that posts each key to `url`, for as long as the attempt may run.

    | answer | the key |
    |---|---|
    | any, with `Retry-After` | requeued after that time, attempts 0 |
    | 2xx | completed |
    | 408, 425, 429, 5xx | failed: tried again |
    | any other 4xx | dropped |
    | 502, 503, 504 without `workqueue-answer` | failed; it counts as an outage of the target |
    | no connection, or one that broke | failed; it counts as an outage of the target |
    | 3xx | failed: redirects are not followed |

    Args:
        url: http:// or https://.
        source: the workqueue's name, `source` of each event.
        security: whom to trust, and what to show: CA, client certificate, bearer token.
        clock: what a date in `Retry-After` is counted from.

    Raises:
        InvalidSettingError: `url` is none, or `security` does not fit it.
    """
    parts = _checked(url)
    security = security or ClientSecurity()
    security.check_address(parts.hostname or "", tls=parts.scheme == "https")
    return HttpCallback(url, source, security, clock or SystemClock())


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # a port beyond 65535, a broken IPv6 address
        pass
    raise InvalidSettingError(
        f"{shown_url(url)!r} is no URL to post keys to; it takes http://host/path or https://host/path"
    )


class HttpCallback:
    """What `http_callback` returns. As an async context manager it closes its connections."""

    def __init__(self, url: str, source: str, security: ClientSecurity, clock: Clock) -> None:
        self._url = url
        self._source = source
        self._security = security
        self._clock = clock
        self._tls = security.contexts() if url.startswith("https://") else None
        self._session: ClientSession | None = None
        self.outage = Outage()
        """What is known of the handler, by all rounds and loops that call it through this."""

    async def __call__(self, key: str, attempt: Attempt) -> RequeueAfter | None:
        from aiohttp import ClientConnectorError, ClientError, ConnectionTimeoutError  # half a second to import

        message = self._event(key, attempt)
        headers = {**message.headers, **await self._authorization()}
        session, tls = self._opened(), True if self._tls is None else self._tls.current()
        try:
            async with session.post(
                self._url, data=message.body, headers=headers, allow_redirects=False, ssl=tls
            ) as response:
                text = await _beginning(response)
        except (ClientConnectorError, ConnectionTimeoutError) as error:
            raise TargetUnavailableError(f"{shown_url(self._url)}: {describe(error)}") from error
        except (ClientError, OSError) as error:
            raise TargetUnavailableError(f"{shown_url(self._url)}: {describe(error)}", "broken") from error
        later = retry_after(response.headers.get("retry-after", ""), from_us(self._clock.wall_us()))
        return outcome_of_status(response.status, text, later, marked=ANSWER_HEADER in response.headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; calls under way break off."""
        if self._session is not None:
            closing, self._session = self._session, None
            await closing.close()

    async def _authorization(self) -> dict[str, str]:
        if self._security.token is None:
            return {}
        try:
            return {"authorization": f"Bearer {await self._security.token.token()}"}
        except StoreUnavailableError as error:
            raise TargetUnavailableError(f"no token for {shown_url(self._url)}: {describe(error)}") from error

    def _opened(self) -> ClientSession:
        if self._session is None:
            from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

            connector = TCPConnector(limit=0)  # the dispatcher limits concurrency
            timeout = ClientTimeout(total=None, connect=_CONNECT_SECONDS)  # and run time
            self._session = ClientSession(connector=connector, timeout=timeout, cookie_jar=DummyCookieJar())
        return self._session

    def _event(self, key: str, attempt: Attempt) -> HTTPMessage:
        from cloudevents.core.bindings.http import to_binary_event
        from cloudevents.core.v1.event import CloudEvent

        attributes = {
            "id": str(uuid4()),
            "type": EVENT_TYPE,
            "source": self._source,
            "subject": key,
            "time": from_us(self._clock.wall_us()),
            "datacontenttype": "application/json",
        }
        return to_binary_event(CloudEvent(attributes, key_document(key, attempt)))


def outcome_of_status(status: int, text: str, later: timedelta | None, *, marked: bool) -> RequeueAfter | None:
    """What an answer means, as in the table of `http_callback`.

    Args:
        status: of the answer.
        text: the beginning of its body.
        later: what `Retry-After` asks for.
        marked: whether the handler surely answered itself.

    Raises:
        NonRetriableError, HandlerFailedError, InfrastructureError, TargetUnavailableError: as in the table.
    """
    if later is not None:
        return RequeueAfter(later)
    if 200 <= status < 300:
        return None
    why = f"the handler answered {status}{': ' if text else ''}{text}"
    if status in _FROM_PROXIES:
        raise InfrastructureError(why) if marked else TargetUnavailableError(why, "refused")
    if 400 <= status < 500 and status not in _RETRIED:
        raise NonRetriableError(why)
    raise HandlerFailedError(why)


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


async def _beginning(response: ClientResponse) -> str:
    """As much of the body as an error shows; the rest is not read, or an endless one would hold the slot."""
    if response.status < 300:
        return ""
    body = b""
    while len(body) < MAX_REASON_BYTES and (part := await response.content.read(MAX_REASON_BYTES)):
        body += part
    if not response.content.at_eof():
        response.close()
    return cut(body.decode("utf-8", "replace").strip(), MAX_REASON_BYTES)
