"""The HTTP side of a program: its app behind tokens and TLS, and its probes once more in plaintext where asked for."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp

from workqueue.access.addresses import join_host_port
from workqueue.access.security import ServerSecurity, check_listen
from workqueue.web.bearer import guarded
from workqueue.web.http_limits import HttpLimits
from workqueue.web.probes import probing
from workqueue.web.server import http_server

__all__ = ["Front"]

log = logging.getLogger(__name__)

_LIMITS = HttpLimits()


@dataclass(frozen=True, slots=True)
class Front:
    """Where a program is reached over HTTP, and by whom.

    Args:
        host: an address or a name; another than loopback needs TLS or `security.insecure`.
        port: 0 for any free one.
        probe_port: where `/healthz` and `/readyz` are in plaintext as well; None = nowhere.
        security: TLS and tokens.

    Raises:
        InvalidSettingError: as `check_listen`.
    """

    host: str
    port: int
    probe_port: int | None
    security: ServerSecurity

    def __post_init__(self) -> None:
        check_listen(self.host, self.port, self.security)

    @asynccontextmanager
    async def opened(self, app: ASGIApp, shows: str, limits: HttpLimits = _LIMITS) -> AsyncIterator[None]:
        """Serve `app` until the block ends.

        Args:
            app: answers the probes, among others.
            shows: what it shows, for the log.
            limits: what clients may cost.

        Raises:
            InvalidSettingError: the address cannot be listened on.
        """
        async with (
            http_server(
                guarded(app, self.security), self.host, self.port, tls=self.security.tls, limits=limits
            ) as port,
            probing(app, self.host, self.probe_port) as probes,
        ):
            log.info("%s on %s", shows, join_host_port(self.host, port))
            if probes is not None:
                log.info("plaintext probes on %s", join_host_port(self.host, probes))
            yield
