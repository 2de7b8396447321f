"""For programs: who may come to a console and how it is reached, as flags; for a process that has its own as well."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from workqueue.access.addresses import is_loopback
from workqueue.errors import InvalidSettingError
from workqueue.programs.access import ListenFlags
from workqueue.programs.converters import FILE, TEXT, URL, listed
from workqueue.programs.flags import Flag, naming

if TYPE_CHECKING:
    from workqueue.web.console import Admission, ConsoleSettings, OIDCLogin

__all__ = ["ConsoleFlags"]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ConsoleFlags:
    """How a console behaves, and what its visitors may do."""

    read_only: Annotated[bool, Flag("nobody may act", ("WORKQUEUE_CONSOLE_READ_ONLY",))] = False
    viewer_tokens: Annotated[
        Path | None,
        Flag("bearer tokens that may look and not act, one a line", ("WORKQUEUE_CONSOLE_VIEWER_TOKENS",), FILE),
    ] = None
    oidc_operators: Annotated[
        tuple[str, ...],
        Flag(
            "of the OIDC subjects those that may act; without it all of them",
            ("WORKQUEUE_CONSOLE_OIDC_OPERATORS",),
            listed("SUBJECT"),
        ),
    ] = ()
    oidc_client_id: Annotated[
        str | None,
        Flag("offer a login by --oidc-issuer, as this client", ("WORKQUEUE_CONSOLE_OIDC_CLIENT_ID",), TEXT),
    ] = None
    oidc_client_secret: Annotated[
        Path | None, Flag("its secret; a public client has none", ("WORKQUEUE_CONSOLE_OIDC_CLIENT_SECRET",), FILE)
    ] = None
    public_url: Annotated[
        str, Flag("where browsers reach it, behind a proxy", ("WORKQUEUE_CONSOLE_PUBLIC_URL",), URL)
    ] = ""
    trusted_proxies: Annotated[
        tuple[str, ...],
        Flag(
            "addresses whose X-Forwarded-Proto, -Host and -Prefix count",
            ("WORKQUEUE_CONSOLE_TRUSTED_PROXIES",),
            listed("ADDRESS"),
        ),
    ] = ()
    trace_link: Annotated[
        str, Flag("where a trace is shown: a URL with {trace_id} in it", ("WORKQUEUE_CONSOLE_TRACE_LINK",), URL)
    ] = ""

    def settings(self, listen: ListenFlags) -> ConsoleSettings:
        """These flags as the console takes them.

        Raises:
            InvalidSettingError: one of them is no such URL.
        """
        from workqueue.web.console import ConsoleSettings

        with naming("--public-url, --trace-link"):
            return ConsoleSettings(
                self.read_only, self.trace_link, self.public_url, self.trusted_proxies, self._hosts(listen)
            )

    def _hosts(self, listen: ListenFlags) -> Collection[str]:
        """On loopback without a login only the names of loopback are answered to."""
        is_open = listen.accept_tokens is None and listen.oidc_issuer is None and self.viewer_tokens is None
        is_near = is_loopback(listen.host) and not self.public_url and not self.trusted_proxies
        return _LOOPBACK if is_open and is_near else ()

    def admission(self, listen: ListenFlags) -> tuple[Admission | None, OIDCLogin | None]:
        """Who may come in, and the login by an issuer, where there is one.

        Raises:
            InvalidSettingError: a flag lacks another, or a file is not what it should be.
            MissingExtraError: OIDC needs a library that is not installed.
        """
        if listen.oidc_issuer is not None:
            return self._by_issuer(listen, listen.oidc_issuer)
        for flag, given in (("--oidc-operators", self.oidc_operators), ("--oidc-client-id", self.oidc_client_id)):
            if given:
                raise InvalidSettingError(f"{flag} needs --oidc-issuer")
        if listen.accept_tokens is None and self.viewer_tokens is None:
            return None, None
        from workqueue.access.tokens import ListedTokens
        from workqueue.web.console import TokenAdmission

        with naming("--accept-tokens, --viewer-tokens"):
            both = [None if path is None else ListedTokens(path) for path in (listen.accept_tokens, self.viewer_tokens)]
        return TokenAdmission(*both), None

    def _by_issuer(self, listen: ListenFlags, issuer: str) -> tuple[Admission, OIDCLogin | None]:
        from workqueue.access.oidc import OIDCTokens
        from workqueue.web.console import OIDCAdmission, OIDCLogin

        if self.viewer_tokens is not None:
            raise InvalidSettingError("--viewer-tokens and --oidc-issuer: give one of them")

        def accepted(audience: str) -> OIDCAdmission:
            jwks_url = listen.oidc_jwks_url or ""
            tokens = OIDCTokens(issuer, audience, subjects=listen.oidc_subjects, jwks_url=jwks_url)
            return OIDCAdmission(tokens, self.oidc_operators)

        with naming("--oidc-issuer"):
            admission = accepted(listen.oidc_audience or "")
            if self.oidc_client_id is None:
                return admission, None
            login = accepted(self.oidc_client_id)
        return admission, OIDCLogin(issuer, self.oidc_client_id, login, self._secret())

    def _secret(self) -> str:
        if self.oidc_client_secret is None:
            return ""
        try:
            return self.oidc_client_secret.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise InvalidSettingError(f"--oidc-client-secret: it takes a file that can be read ({error})") from error
