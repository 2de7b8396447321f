"""What dispatchers know that their queue does not: their `/status`, asked over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from workqueue.access.security import ClientSecurity
from workqueue.access.urls import http_url
from workqueue.errors import StoreUnavailableError
from workqueue.extras import importing
from workqueue.safe_text import describe, shown_url
from workqueue.telemetry.standing import Standing

if TYPE_CHECKING:
    from aiohttp import ClientSession

__all__ = ["AskedDispatcher", "Dispatchers"]

_PATIENCE_SECONDS = 3.0


class AskedDispatcher:
    """One dispatcher's address and how it is called.

    Args:
        url: http:// or https://, of its trigger; `/status` is appended.
        security: of the calls.

    Raises:
        InvalidSettingError: it is no such URL, or `security` does not suit it.
    """

    def __init__(self, url: str, security: ClientSecurity) -> None:
        self.name = shown_url(url)
        parts = http_url(url, "of a dispatcher")
        security.check_address(parts.hostname or "", tls=parts.scheme == "https")
        self._url = f"{url.rstrip('/')}/status"
        self._token = security.token
        self._contexts = security.contexts() if parts.scheme == "https" else None

    async def standing(self, session: ClientSession) -> Standing:
        """Ask it. Whatever goes wrong is a trouble of the answer."""
        from aiohttp import ClientError

        try:
            return Standing.read(self.name, await self._document(session))
        except (KeyError, TypeError, ValueError):
            return Standing(self.name, troubles=["it does not answer as a dispatcher does"])
        except TimeoutError:
            return Standing(self.name, troubles=[f"no answer within {_PATIENCE_SECONDS:.0f} s"])
        except (ClientError, OSError, StoreUnavailableError) as error:
            return Standing(self.name, troubles=[describe(error)])

    async def _document(self, session: ClientSession) -> Any:
        headers = {} if self._token is None else {"authorization": f"Bearer {await self._token.token()}"}
        options: Any = {} if self._contexts is None else {"ssl": self._contexts.current()}
        # A redirect is not followed: a token for one host is not meant for another.
        async with session.get(
            self._url, headers=headers, allow_redirects=False, raise_for_status=True, **options
        ) as answer:
            return await answer.json()


class Dispatchers:
    """Any number of dispatchers, asked at once; to be entered."""

    def __init__(self, asked: Sequence[AskedDispatcher]) -> None:
        self._asked = asked
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        if self._asked:
            with importing("events", "asking a dispatcher"):
                from aiohttp import ClientSession, ClientTimeout
            self._session = ClientSession(timeout=ClientTimeout(_PATIENCE_SECONDS))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def standings(self) -> list[Standing]:
        """How each of them fares."""
        if self._session is None:
            return []
        return await asyncio.gather(*[each.standing(self._session) for each in self._asked])
