"""Who may connect, and how: TLS, mTLS and tokens of servers and clients, gRPC and HTTP alike.

Files are read and checked when the settings are made, so that a wrong path or a key of another certificate stops a
program at its start, with one line. Afterwards they are followed: a renewed certificate needs no restart.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from workqueue.access.addresses import is_loopback
from workqueue.access.files import Followed
from workqueue.access.tokens import TokenSource, TokenVerifier
from workqueue.errors import InvalidOptionsError, InvalidSettingError
from workqueue.optional import offers
from workqueue.options import check_type

__all__ = ["ClientSecurity", "ServerSecurity", "ServerTLS", "check_listen"]


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """A server's certificate; with `client_ca`, clients must show a certificate as well (mTLS).

    Args:
        certificate: PEM file of the server's certificate, intermediates after it.
        key: PEM file of its private key, without a passphrase.
        client_ca: PEM file of the authorities whose client certificates are accepted.

    Raises:
        InvalidSettingError: a file cannot be read, is no PEM, or the key is not the certificate's.
        InvalidOptionsError: an argument is no Path.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        for name in ("certificate", "key", "client_ca"):
            _check_path(name, getattr(self, name))
        self.check()

    def check(self) -> None:
        """Read the files and see whether they fit together.

        Raises:
            InvalidSettingError: they do not, any more.
        """
        _check_pair(self.certificate, self.key, ssl.PROTOCOL_TLS_SERVER)
        if self.client_ca is not None:
            _check_authorities(self.client_ca)

    @property
    def files(self) -> list[Path]:
        """What to follow."""
        return [path for path in (self.certificate, self.key, self.client_ca) if path is not None]

    def contexts(self) -> Followed[ssl.SSLContext]:
        """What a server of ours encrypts with; ask anew for each connection, since a certificate may be renewed."""
        return Followed(self.files, self._context, "certificate of this server")

    def _context(self) -> ssl.SSLContext:
        context = _check_pair(self.certificate, self.key, ssl.PROTOCOL_TLS_SERVER)
        if self.client_ca is not None:
            _load_authorities(context, self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@dataclass(frozen=True, slots=True)
class ServerSecurity:
    """How a server is reached.

    Args:
        tls: None serves plaintext.
        tokens: who checks bearer tokens; None asks for none. Health checks never need one.
        insecure: plaintext on a public address is meant, since something in front of it does TLS.

    Raises:
        InvalidOptionsError: an argument is of another type.
    """

    tls: ServerTLS | None = None
    tokens: TokenVerifier | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.tls is not None:
            check_type("tls", self.tls, ServerTLS, "ServerTLS(certificate, key)")
        if self.tokens is not None and not offers(self.tokens, TokenVerifier):
            raise InvalidOptionsError(f"tokens takes who checks them, as StaticTokens, not a {_kind(self.tokens)}")


def check_listen(host: str, port: int, security: ServerSecurity) -> None:
    """Refuse to be reachable from other machines in plaintext, unless that was asked for.

    Raises:
        InvalidOptionsError: `host` is no text, `port` no number, or `security` something else.
        InvalidSettingError: `host` is not loopback and there is neither TLS nor `insecure`; or `port` is no port.
    """
    check_type("security", security, ServerSecurity, "ServerSecurity(tls=..., tokens=...)")
    check_type("host", host, str, "text, such as 127.0.0.1")
    check_type("port", port, int, "a number from 0 (any free port) to 65535")
    if not 0 <= port <= 65535:
        raise InvalidSettingError(f"port={port}: it takes a number from 0 (any free port) to 65535")
    if not (is_loopback(host) or security.tls or security.insecure):
        raise InvalidSettingError(
            f"host={host} is reachable from other machines: set a TLS certificate and key, "
            "or insecure if something in front of it does TLS"
        )


@dataclass(frozen=True, slots=True)
class ClientSecurity:
    """How a client trusts and is trusted.

    Args:
        ca: PEM file of the authorities that servers are checked against; None = the public ones that gRPC brings.
        certificate: PEM file of the client's own certificate, for mTLS; goes with `key`.
        key: PEM file of its private key, without a passphrase.
        token: where bearer tokens come from.
        insecure: tokens may go to other machines in plaintext, since something in between does TLS.

    Raises:
        InvalidSettingError: a file cannot be read, is no PEM, or the key is not the certificate's; or one is missing.
        InvalidOptionsError: an argument is of another type.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: TokenSource | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        for name in ("ca", "certificate", "key"):
            _check_path(name, getattr(self, name))
        if self.token is not None and not offers(self.token, TokenSource):
            raise InvalidOptionsError(f"token takes where tokens come from, as TokenFile, not a {_kind(self.token)}")
        if (self.certificate is None) != (self.key is None):
            raise InvalidSettingError("a client certificate and its key go together; one of them is missing")
        self.check()

    def check_address(self, host: str, *, tls: bool) -> None:
        """Refuse what would be ignored or overheard.

        Raises:
            InvalidSettingError: TLS files for a plaintext address, or a token that would travel in plaintext.
        """
        if tls:
            return
        if self.ca is not None or self.certificate is not None:
            raise InvalidSettingError("a CA or client certificate needs TLS: say grpcs:// or https://")
        if self.token is not None and not (self.insecure or is_loopback(host)):
            raise InvalidSettingError(
                f"the token would travel to {host} in plaintext: say grpcs:// or https://, "
                "or insecure if something in between does TLS"
            )

    def check(self) -> None:
        """Read the files and see whether they fit together.

        Raises:
            InvalidSettingError: they do not, any more.
        """
        if self.certificate is not None and self.key is not None:
            _check_pair(self.certificate, self.key, ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            _check_authorities(self.ca)

    @property
    def files(self) -> list[Path]:
        """What to follow."""
        return [path for path in (self.ca, self.certificate, self.key) if path is not None]

    def contexts(self) -> Followed[ssl.SSLContext]:
        """What asyncio and HTTP clients encrypt with; ask anew for each connection: a certificate may be renewed."""
        return Followed(self.files, self.ssl_context, "certificate of this client")

    def ssl_context(self) -> ssl.SSLContext:
        """The context of one connection, of the files as they are now."""
        self.check()
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


def _check_path(name: str, path: Path | None) -> None:
    if path is not None:
        check_type(name, path, Path, "a Path, such as Path('ca.pem')")


def _kind(value: object) -> str:
    return type(value).__name__


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidSettingError(f"cannot read {path}: {error.strerror}") from error


def _check_pair(certificate: Path, key: Path, protocol: int) -> ssl.SSLContext:
    _read(certificate), _read(key)
    context = ssl.SSLContext(protocol)
    try:
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        why = error.reason if isinstance(error, ssl.SSLError) else str(error)
        raise InvalidSettingError(
            f"{certificate} and {key} are not a PEM certificate and its key: {why or error}"
        ) from error
    return context


def _check_authorities(path: Path) -> None:
    _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), path)


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    _read(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise InvalidSettingError(f"{path} holds no PEM certificates: {error.reason or error}") from error
