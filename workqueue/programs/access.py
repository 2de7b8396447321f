"""For programs: where a server listens and who may call it, and how a client trusts and is trusted, as flags.

Secrets come in files: a command line can be read by every process of the machine, an environment by its children.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from workqueue.errors import InvalidSettingError
from workqueue.programs.converters import FILE, TEXT, URL, Converter, listed, whole
from workqueue.programs.flags import Flag, naming

if TYPE_CHECKING:  # gRPC takes long to import, and enqueueing into a file does not need it
    from workqueue.access.security import ClientSecurity, ServerSecurity
    from workqueue.access.tokens import TokenSource, TokenVerifier
    from workqueue.web.front import Front

__all__ = ["GRPC_PORT", "HTTP_PORT", "PORT", "CallFlags", "ListenFlags"]


PORT = whole(0, 65535)
GRPC_PORT, HTTP_PORT = 8090, 8091  # not 8080, where a reconciler on the same machine listens


@dataclass(frozen=True, slots=True)
class ListenFlags:
    """Where a server listens, and whom it lets in; for gRPC and HTTP alike."""

    host: Annotated[
        str,
        Flag("address to listen on; a public one needs TLS or --insecure", ("WORKQUEUE_HOST",), Converter("HOST", str)),
    ] = "127.0.0.1"
    insecure: Annotated[
        bool, Flag("plaintext on a public address: something in front does TLS", ("WORKQUEUE_INSECURE",))
    ] = False
    probe_port: Annotated[
        int | None,
        Flag(
            "plaintext /healthz and /readyz alone, for kubelets; none = no such port", ("WORKQUEUE_PROBE_PORT",), PORT
        ),
    ] = None
    tls_cert: Annotated[Path | None, Flag("certificate to serve with, PEM", ("WORKQUEUE_TLS_CERT",), FILE)] = None
    tls_key: Annotated[Path | None, Flag("its private key, PEM", ("WORKQUEUE_TLS_KEY",), FILE)] = None
    tls_client_ca: Annotated[
        Path | None, Flag("authorities whose client certificates are asked for", ("WORKQUEUE_TLS_CLIENT_CA",), FILE)
    ] = None
    accept_tokens: Annotated[
        Path | None, Flag("bearer tokens that callers may show, one a line", ("WORKQUEUE_ACCEPT_TOKENS",), FILE)
    ] = None
    oidc_issuer: Annotated[
        str | None, Flag("accept OIDC tokens of this issuer; needs [oidc]", ("WORKQUEUE_OIDC_ISSUER",), URL)
    ] = None
    oidc_audience: Annotated[str | None, Flag("for this audience", ("WORKQUEUE_OIDC_AUDIENCE",), TEXT)] = None
    oidc_subjects: Annotated[
        tuple[str, ...], Flag("of these subjects or e-mail addresses", ("WORKQUEUE_OIDC_SUBJECTS",), listed("SUBJECT"))
    ] = ()
    oidc_jwks_url: Annotated[
        str | None, Flag("the issuer's keys, where discovery has none", ("WORKQUEUE_OIDC_JWKS_URL",), URL)
    ] = None

    def __post_init__(self) -> None:
        _together("--tls-cert", self.tls_cert, "--tls-key", self.tls_key)
        _together("--oidc-issuer", self.oidc_issuer, "--oidc-audience", self.oidc_audience)
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise InvalidSettingError("--tls-client-ca needs --tls-cert and --tls-key")
        if self.accept_tokens is not None and self.oidc_issuer is not None:
            raise InvalidSettingError("--accept-tokens and --oidc-issuer: give one of them")
        if self.oidc_issuer is None and (self.oidc_subjects or self.oidc_jwks_url):
            raise InvalidSettingError("--oidc-subjects and --oidc-jwks-url need --oidc-issuer")

    def security(self) -> ServerSecurity:
        """These flags as servers take them; files are read and checked.

        Raises:
            InvalidSettingError: a file or URL is not what it should be.
            MissingExtraError: OIDC needs a library that is not installed.
        """
        from workqueue.access.security import ServerSecurity, ServerTLS

        tls = None
        if self.tls_cert is not None and self.tls_key is not None:
            with naming("--tls-cert, --tls-key, --tls-client-ca"):
                tls = ServerTLS(self.tls_cert, self.tls_key, self.tls_client_ca)
        with naming("--accept-tokens, --oidc-issuer"):
            return ServerSecurity(tls, self._tokens(), self.insecure)

    def front(self, port: int) -> Front:
        """Where the program is reached over HTTP; its gRPC port has the same host and security.

        Raises:
            InvalidSettingError, MissingExtraError: as `security`; or the host is a public one, without TLS.
        """
        from workqueue.web.front import Front

        security = self.security()
        with naming("--host"):
            return Front(self.host, port, self.probe_port, security)

    def _tokens(self) -> TokenVerifier | None:
        if self.accept_tokens is not None:
            from workqueue.access.tokens import ListedTokens

            return ListedTokens(self.accept_tokens)
        if self.oidc_issuer is not None:
            from workqueue.access.oidc import OIDCTokens

            jwks_url = self.oidc_jwks_url or ""
            return OIDCTokens(
                self.oidc_issuer, self.oidc_audience or "", subjects=self.oidc_subjects, jwks_url=jwks_url
            )
        return None


@dataclass(frozen=True, slots=True)
class CallFlags:
    """How calls to gRPC servers are secured; used with addresses of grpcs:// and https://."""

    ca: Annotated[Path | None, Flag("authorities that servers are checked against, PEM", ("WORKQUEUE_CA",), FILE)] = (
        None
    )
    client_cert: Annotated[
        Path | None, Flag("certificate to show to servers, PEM", ("WORKQUEUE_CLIENT_CERT",), FILE)
    ] = None
    client_key: Annotated[Path | None, Flag("its private key, PEM", ("WORKQUEUE_CLIENT_KEY",), FILE)] = None
    token_file: Annotated[Path | None, Flag("bearer token to send, read again", ("WORKQUEUE_TOKEN_FILE",), FILE)] = None
    google_id_token: Annotated[
        bool, Flag("send an ID token of this service account, as Cloud Run asks", ("WORKQUEUE_GOOGLE_ID_TOKEN",))
    ] = False
    insecure_token: Annotated[
        bool, Flag("send tokens in plaintext: something in between does TLS", ("WORKQUEUE_INSECURE_TOKEN",))
    ] = False

    def __post_init__(self) -> None:
        _together("--client-cert", self.client_cert, "--client-key", self.client_key)
        if self.token_file is not None and self.google_id_token:
            raise InvalidSettingError("--token-file and --google-id-token: give one of them")

    def security(self, address: str) -> ClientSecurity:
        """These flags as the client of `address` takes them; files are read and checked.

        Raises:
            InvalidSettingError: a file is not what it should be.
        """
        from workqueue.access.security import ClientSecurity

        with naming("--token-file"):
            token = self._token(address)
        with naming("--ca, --client-cert, --client-key"):
            return ClientSecurity(self.ca, self.client_cert, self.client_key, token, insecure=self.insecure_token)

    def _token(self, address: str) -> TokenSource | None:
        if self.token_file is not None:
            from workqueue.access.tokens import TokenFile

            return TokenFile(self.token_file)
        if self.google_id_token:
            from workqueue.access.google_identity import METADATA_HOST, GoogleIDToken
            from workqueue.rpc.channel import Address

            audience = f"https://{Address.parse(address).host}"  # what Cloud Run calls a service
            return GoogleIDToken(audience, metadata_host=os.environ.get("GCE_METADATA_HOST") or METADATA_HOST)
        return None


def _together(name: str, value: object, other_name: str, other: object) -> None:
    if (value is None) != (other is None):
        raise InvalidSettingError(f"{name} and {other_name} go together; {other_name if value else name} is missing")
