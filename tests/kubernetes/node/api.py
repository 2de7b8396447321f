"""The few calls to the API server that a node makes, in plain JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import aiohttp

__all__ = ["Api", "ApiError", "Object"]

Object = dict[str, Any]


class ApiError(Exception):
    """The API server refused; `code` is the HTTP status."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Api:
    """A client; an async context manager."""

    def __init__(self, url: str, token: str, ca: Path) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(self._url, headers=self._headers)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> Object:
        """One request; the answer's object.

        Raises:
            ApiError: it was refused, or nobody answered (503).
        """
        data = None if body is None else json.dumps(body)
        try:
            async with self._session.request(
                method, path, data=data, headers={"Content-Type": kind}, ssl=self._tls
            ) as answer:
                text = await answer.text()
        except aiohttp.ClientError as error:
            raise ApiError(503, str(error)) from error
        if answer.status >= 300:
            raise ApiError(answer.status, text)
        found: Object = json.loads(text)
        return found

    async def patch(self, path: str, body: Object) -> Object:
        return await self.call("PATCH", path, body, "application/merge-patch+json")

    async def watch(self, path: str) -> AsyncIterator[tuple[str, Object]]:
        """Every object at `path` as ADDED, then what happens to each, for ever; a lost watch begins anew."""
        while True:
            with contextlib.suppress(ApiError, aiohttp.ClientError):  # an API server may end, and come back
                listed = await self.call("GET", path)
                for item in listed.get("items") or ():
                    yield "ADDED", item
                version = listed["metadata"]["resourceVersion"]
                async for event in self._events(f"{path}?watch=true&resourceVersion={version}"):
                    yield event
            await asyncio.sleep(0.2)

    async def _events(self, path: str) -> AsyncIterator[tuple[str, Object]]:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=None)
        async with self._session.get(path, ssl=self._tls, timeout=timeout) as answer:
            buffered = b""
            async for chunk in answer.content.iter_any():
                *lines, buffered = (buffered + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return
                    yield event["type"], event["object"]
