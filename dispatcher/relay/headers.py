"""Which headers of a request are kept, and which the relay reads itself (pure).

A request is forwarded as it came, less what belongs to the connection that it came on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta

from dispatcher.relay.errors import RefusedRequestError
from dispatcher.relay.target import Target

__all__ = ["TARGET_HEADERS", "Headers", "forwarded", "idempotency_key", "target_of", "timeout_of", "trace_of"]

Headers = Sequence[tuple[str, str]]
"""Names in lower case with their values, in the order in which they came; a name may come several times."""

TARGET_HEADERS = ("x-dispatcher-original-host", "x-dispatcher-origin-host")
"""Either spelling of the Go relay: one is in its code, the other in its README."""

_OURS = "x-dispatcher-"
_TIMEOUT = "x-dispatcher-timeout"
_AUTHORIZATION = "x-dispatcher-authorization"
_IDEMPOTENCY = "idempotency-key"
_TRACE = "traceparent"
_TRACE_FORM = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MOST_TIMEOUT_MS = 3_600_000

# RFC 9110, 7.6.1, and what is made anew for the connection to the target. `accept-encoding` goes because nobody but the
# relay reads the answer, and `expect` because it was met when the body came in.
_OF_THE_CONNECTION = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


def target_of(headers: Headers) -> Target | None:
    """The target that a request names; None if it names none.

    Raises:
        RefusedRequestError: it names several, or what it names is none.
    """
    named = {value for name, value in headers if name in TARGET_HEADERS}
    if not named:
        return None
    if len(named) > 1:
        raise RefusedRequestError(
            400, "target", "the request names several targets: send X-Dispatcher-Original-Host once"
        )
    try:
        return Target.parse(named.pop().strip())
    except ValueError as error:
        raise RefusedRequestError(400, "target", f"X-Dispatcher-Original-Host: {error}") from None


def timeout_of(headers: Headers, default: timedelta) -> timedelta:
    """How long a call for the request may take.

    Raises:
        RefusedRequestError: the header says something else than 1 to 3,600,000 ms.
    """
    said = _last(headers, _TIMEOUT)
    if said is None:
        return default
    if not (said.isascii() and said.isdigit() and 0 < int(said[:12]) <= _MOST_TIMEOUT_MS):
        raise RefusedRequestError(
            400, "timeout", f"X-Dispatcher-Timeout takes whole milliseconds, from 1 to {_MOST_TIMEOUT_MS}"
        )
    return timedelta(milliseconds=int(said))


def idempotency_key(headers: Headers) -> str:
    """The `Idempotency-Key` that the caller sent; '' if there is none."""
    return _last(headers, _IDEMPOTENCY) or ""


def trace_of(headers: Headers) -> dict[str, str]:
    """The caller's W3C trace as meta, so that the sending of the request is a part of it."""
    trace = _last(headers, _TRACE) or ""
    return {_TRACE: trace} if _TRACE_FORM.fullmatch(trace) else {}


def forwarded(headers: Headers, *, drop_authorization: bool) -> list[tuple[str, str]]:
    """The headers to send to the target.

    Args:
        headers: as they came.
        drop_authorization: `Authorization` was for the relay; the target must not see it. What the target is to see in
            its place comes as `X-Dispatcher-Authorization`.
    """
    dropped = _OF_THE_CONNECTION | set(_named_by_connection(headers))
    if drop_authorization:
        dropped |= {"authorization"}
    kept = [(name, value) for name, value in headers if name not in dropped and not name.startswith(_OURS)]
    for_target = _last(headers, _AUTHORIZATION)
    if for_target is None:
        return kept
    return [*(header for header in kept if header[0] != "authorization"), ("authorization", for_target)]


def _named_by_connection(headers: Headers) -> Iterable[str]:
    for name, value in headers:
        if name == "connection":
            yield from (part.strip().lower() for part in value.split(","))


def _last(headers: Headers, wanted: str) -> str | None:
    return next((value.strip() for name, value in reversed(headers) if name == wanted), None)
