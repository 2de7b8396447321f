"""/healthz and /readyz alone on a port of their own, for those who can show no certificate.

A kubelet speaks gRPC without TLS, and HTTPS without a certificate of its own. So a server that asks for certificates
could not be probed on the ports where it serves; on this one nothing is to be had but two status codes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from workqueue.web.http_limits import PROBES
from workqueue.web.server import http_server

__all__ = ["probing"]


@asynccontextmanager
async def probing(app: ASGIApp, host: str, port: int | None) -> AsyncIterator[int | None]:
    """Serve the probes of `app` in plaintext until the block ends, and nothing else of it.

    Args:
        app: answers `/healthz` and `/readyz`; what guards it stays outside.
        host: a name or an address, a public one too: a probe shows no more than that something runs.
        port: 0 = any free one, None = serve nothing.

    Yields:
        The port, if there is one.

    Raises:
        InvalidSettingError: the address cannot be listened on.
    """
    if port is None:
        yield None
        return
    async with http_server(_only_probes(app), host, port) as bound:
        yield bound


def _only_probes(app: ASGIApp) -> ASGIApp:
    nothing = PlainTextResponse("only /healthz and /readyz are here\n", 404)

    async def probes(scope: Scope, receive: Receive, send: Send) -> None:
        await (app if scope["path"] in PROBES else nothing)(scope, receive, send)

    return probes
