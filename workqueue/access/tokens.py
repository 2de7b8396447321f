"""Bearer tokens: which ones a server accepts, and where a client gets its own."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from workqueue.access.files import Followed
from workqueue.errors import InvalidSettingError, WorkQueueError

__all__ = [
    "ListedTokens",
    "StaticTokens",
    "TokenCheckUnavailableError",
    "TokenFile",
    "TokenRefusedError",
    "TokenSource",
    "TokenVerifier",
    "bearer_token",
]


class TokenRefusedError(WorkQueueError):
    """The bearer token is missing or not valid."""


class TokenCheckUnavailableError(WorkQueueError):
    """Whether the token is valid cannot be found out at the moment."""


# Servers


class TokenVerifier(Protocol):
    """Decides which bearer tokens a server accepts."""

    async def verify(self, token: str) -> None:
        """Return if `token` is accepted.

        Raises:
            TokenRefusedError: it is not accepted; the message may go to whoever showed it.
            TokenCheckUnavailableError: it could not be checked.
        """


class StaticTokens:
    """Accepts any of the given tokens; several, so that they can be replaced one after the other.

    Raises:
        InvalidSettingError: there is none, or one is not plain ASCII without spaces.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self._tokens = tuple(_check_token(token).encode() for token in tokens)
        if not self._tokens:
            raise InvalidSettingError("tokens are asked for, but none is set: nobody could call this server")

    async def verify(self, token: str) -> None:
        shown = token.encode(errors="replace")
        # All are compared, each in constant time: how long it takes says nothing about any of them.
        matches = [hmac.compare_digest(shown, known) for known in self._tokens]
        if not any(matches):
            raise TokenRefusedError("the bearer token is not one of those that this server accepts")


class ListedTokens:
    """Accepts the tokens that a file lists, one a line, and follows the file.

    Raises:
        InvalidSettingError: it cannot be read, or as `StaticTokens`.
    """

    def __init__(self, path: Path) -> None:
        self._accepted = Followed([path], lambda: StaticTokens(_lines(path)), "list of accepted tokens")

    async def verify(self, token: str) -> None:
        await self._accepted.current().verify(token)


def bearer_token(authorizations: Sequence[str]) -> str:
    """The token in the `Authorization` header of a call or request.

    Raises:
        TokenRefusedError: there is no header, or it is of another kind, or there are several.
    """
    if len(authorizations) > 1:  # a proxy may have looked at another one than we would
        raise TokenRefusedError("more than one authorization header: send one")
    kind, _, token = "".join(authorizations).partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise TokenRefusedError("no bearer token: send the header 'authorization: Bearer TOKEN'")
    return token.strip()


# Clients


class TokenSource(Protocol):
    """Where a client's bearer token comes from; asked before every call, so it keeps what it found."""

    async def token(self) -> str:
        """The token to send.

        Raises:
            StoreUnavailableError: there is none at the moment.
        """


class TokenFile:
    """The token in a file that somebody else renews, as Kubernetes does.

    Raises:
        InvalidSettingError: the file cannot be read, is empty, or holds no token.
    """

    def __init__(self, path: Path) -> None:
        self._token = Followed([path], lambda: _check_token(_read(path).strip()), "token")

    async def token(self) -> str:
        return self._token.current()


def _check_token(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidSettingError("a token is plain ASCII without spaces, and not empty")  # never the token itself
    return token


def _lines(path: Path) -> Iterator[str]:
    return (line.strip() for line in _read(path).splitlines() if line.strip())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise InvalidSettingError(f"cannot read the token file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidSettingError(f"the token file {path} is not plain ASCII") from error
