"""TLS as gRPC takes it, of files that are followed: a renewed certificate is used from the next connection on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc

from workqueue.access.files import Followed
from workqueue.access.security import ClientSecurity, ServerTLS

__all__ = ["channel_credentials", "server_credentials"]


def server_credentials(tls: ServerTLS) -> grpc.ServerCredentials:
    """What a server encrypts with. gRPC asks at each connection whether it has changed."""
    renewal = _Renewal(Followed(tls.files, lambda: _configuration(tls), "certificate of this server"))
    ask = cast("Callable[[], grpc.ServerCertificateConfiguration]", renewal.changed)  # None means "no change"
    return grpc.dynamic_ssl_server_credentials(renewal.given, ask, tls.client_ca is not None)


class _Renewal:
    """What gRPC was given last. It asks in threads of its own, for one connection at a time or for several."""

    def __init__(self, followed: Followed[grpc.ServerCertificateConfiguration]) -> None:
        self._followed = followed
        self.given = followed.current()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        before, self.given = self.given, self._followed.current()
        return None if self.given is before else self.given


def _configuration(tls: ServerTLS) -> grpc.ServerCertificateConfiguration:
    tls.check()
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.ssl_server_certificate_configuration([pair], _content(tls.client_ca))


def channel_credentials(security: ClientSecurity) -> Followed[grpc.ChannelCredentials]:
    """What a channel encrypts with; a renewed certificate needs a new channel."""
    return Followed(security.files, lambda: _credentials(security), "certificate of this client")


def _credentials(security: ClientSecurity) -> grpc.ChannelCredentials:
    security.check()
    return grpc.ssl_channel_credentials(*map(_content, (security.ca, security.key, security.certificate)))


def _content(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
