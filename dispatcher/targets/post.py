"""Stage 5: a callback that posts each key to an HTTP address as a CloudEvent, and reads the status as an outcome.

The event is in binary mode: its body is the `key_document`, so that a handler needs no CloudEvents library.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from dispatcher.outage import Outage, TargetUnavailableError
from dispatcher.posting import Poster, retry_after
from dispatcher.targets.document import MAX_REASON_BYTES, HandlerFailedError, key_document
from workqueue.access.security import ClientSecurity
from workqueue.attempt import Attempt
from workqueue.clock import Clock, SystemClock, from_us
from workqueue.errors import InfrastructureError, NonRetriableError, StoreUnavailableError
from workqueue.extras import require
from workqueue.outcomes import RequeueAfter
from workqueue.safe_text import cut, describe, shown_url

if TYPE_CHECKING:
    from aiohttp import ClientResponse
    from cloudevents.core.bindings.http import HTTPMessage

__all__ = ["ANSWER_HEADER", "EVENT_TYPE", "HttpCallback", "http_callback", "outcome_of_status"]

EVENT_TYPE = "dev.chainguard.workqueue.process.v1"

ANSWER_HEADER = "workqueue-answer"
"""A handler sets it, to anything, on a 502, 503 or 504 of its own; else a proxy is taken to have answered for it."""

_RETRIED = frozenset({408, 425, 429})
_FROM_PROXIES = frozenset({502, 503, 504})


def http_callback(
    url: str,
    *,
    source: str = "workqueue",
    security: ClientSecurity | None = None,
    proxy: str | None = None,
    clock: Clock | None = None,
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
        proxy: the URL of an HTTP proxy to go through; None = none.
        clock: what a date in `Retry-After` is counted from.

    Raises:
        InvalidSettingError: `url` or `proxy` is none, or `security` does not fit the URL.
        MissingExtraError: the extra [events] is not installed.
    """
    require("events", "posting keys to a handler")
    poster = Poster(url, "to post keys to", security or ClientSecurity(), proxy)
    return HttpCallback(poster, shown_url(url), source, clock or SystemClock())


class HttpCallback:
    """What `http_callback` returns. As an async context manager it closes its connections."""

    def __init__(self, poster: Poster, shown: str, source: str, clock: Clock) -> None:
        self._poster = poster
        self._shown = shown
        self._source = source
        self._clock = clock
        self.outage = Outage()
        """What is known of the handler, by all rounds and loops that call it through this."""

    async def __call__(self, key: str, attempt: Attempt) -> RequeueAfter | None:
        from aiohttp import ClientConnectorError, ClientError, ClientHttpProxyError, ConnectionTimeoutError

        try:
            async with await self._poster.post(self._event(key, attempt)) as response:
                text = await _beginning(response)
        except StoreUnavailableError as error:
            raise TargetUnavailableError(f"no token for {self._shown}: {describe(error)}") from error
        except (ClientConnectorError, ConnectionTimeoutError, ClientHttpProxyError) as error:
            raise TargetUnavailableError(f"{self._shown}: {describe(error)}") from error
        except (ClientError, OSError) as error:
            raise TargetUnavailableError(f"{self._shown}: {describe(error)}", "broken") from error
        later = retry_after(response.headers.get("retry-after", ""), from_us(self._clock.wall_us()))
        return outcome_of_status(response.status, text, later, marked=ANSWER_HEADER in response.headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; calls under way break off."""
        await self._poster.close()

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
