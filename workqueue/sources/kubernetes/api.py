"""Stage 1: a connection to one Kubernetes API server: any kind of object by its name, as plain JSON.

Of kubernetes-asyncio this uses the configuration (kubeconfig, service account, tokens that are renewed) and the HTTP
session that it makes; the 600 model classes would cost more time per object than everything else that a source does.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from workqueue.errors import InvalidSettingError
from workqueue.extras import require
from workqueue.sources.kubernetes.connections import Connections
from workqueue.sources.kubernetes.errors import NotFoundError, UnreachableError, error_of
from workqueue.sources.kubernetes.kinds import Kind, Resource

if TYPE_CHECKING:
    from aiohttp import ClientResponse
    from kubernetes_asyncio.client import ApiClient, Configuration

__all__ = ["API", "Object"]

Object = dict[str, Any]
"""A Kubernetes object as JSON has it."""

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_LINES_AT_ONCE = 100  # what has arrived may be megabytes; whoever reads it wants to do something else in between
_MERGE_PATCH = "application/merge-patch+json"


class API:
    """Requests to one API server; an async context manager. `API.connect` makes one.

    Args:
        client: an `ApiClient` of kubernetes-asyncio, configured; it is closed on exit.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._connections = Connections(client)
        self._host = str(client.configuration.host)
        self._resources: dict[Kind, Resource] = {}

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None, context: str | None = None) -> Self:
        """Configure a connection; nothing is sent yet.

        Args:
            kubeconfig: a kubeconfig file; without it a pod's service account is used, and outside of a pod kubectl's
                own file.
            context: a context in the file; without it the file's current one.

        Raises:
            MissingExtraError: kubernetes-asyncio is not installed.
            InvalidSettingError: the file or the service account cannot be read or used.
        """
        require("kubernetes", "Kubernetes")
        from kubernetes_asyncio.client import ApiClient, Configuration  # lazily: a second, and 60 MB

        configuration = Configuration()
        await _configure(configuration, kubeconfig, context)
        return cls(ApiClient(configuration))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._connections.close()
        await self._client.close()

    async def resource(self, kind: Kind) -> Resource:
        """Where the objects of `kind` are; asked of the server once.

        Raises:
            NotFoundError: the server has no such kind (yet).
            KubernetesError: as `request`.
        """
        if kind not in self._resources:
            listed = await self.request("GET", kind.discovery_path)
            for each in listed.get("resources", ()):
                if each["kind"] == kind.kind and "/" not in each["name"]:
                    self._resources[kind] = Resource(kind, each["name"], bool(each["namespaced"]))
                    break
            else:
                raise NotFoundError(f"the Kubernetes API server has no kind {kind} (404)", 404)
        return self._resources[kind]

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send one request; returns the answer.

        Raises:
            UnreachableError: no answer, 5xx or 429; whether it was carried out is unknown.
            KubernetesError: the server refused it; nothing was changed.
        """
        async with self._answer(method, path, query or {}, body, content_type) as response:
            try:
                answer = json.loads(await response.read())
            except ValueError as error:
                raise UnreachableError(f"{method} {path}: the answer is no JSON: {error}") from error
        if not isinstance(answer, dict):
            raise UnreachableError(f"{method} {path}: the answer is no JSON object")
        return answer

    async def text(self, path: str, query: Mapping[str, str]) -> str:
        """Read what is at `path`, to be parsed by the caller.

        Raises:
            KubernetesError: as `request`.
        """
        async with self._answer("GET", path, query, None, "") as response:
            try:
                return (await response.read()).decode()
            except UnicodeDecodeError as error:
                raise UnreachableError(f"GET {path}: the answer is no text: {error}") from error

    async def patch(self, path: str, patch: Object) -> Object:
        """Change the fields that `patch` has, by a JSON merge patch; returns the object.

        Raises:
            ConflictError: `patch` names a resourceVersion that is not the present one.
            KubernetesError: as `request`.
        """
        return await self.request("PATCH", path, body=patch, content_type=_MERGE_PATCH)

    async def lines(self, path: str, query: Mapping[str, str], silence: float) -> AsyncGenerator[list[bytes], None]:
        """The lines of an endless answer, those that have arrived, at most 100 at a time.

        A last line without an end was cut off, and is left out.

        Args:
            path: what to read.
            query: how.
            silence: seconds without a byte after which the connection counts as dead.

        Raises:
            KubernetesError: as `request`; an answer that broke off is an UnreachableError.
        """
        async with self._answer("GET", path, query, None, "", silence) as response:
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for start in range(0, len(lines), _LINES_AT_ONCE):
                    yield lines[start : start + _LINES_AT_ONCE]

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        content_type: str,
        silence: float = _ANSWER_SECONDS,
    ) -> AsyncIterator[ClientResponse]:
        from aiohttp import ClientError, ClientTimeout

        # Gzip would halve the speed of a list: the server compresses, and this inflates, on one core each.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            await self._client.update_params_for_auth(headers, [], ["BearerToken"])
            async with self._connections.current() as connection:
                response: ClientResponse = await connection.request(
                    method,
                    self._host + path,
                    query_params=dict(query),
                    headers=headers,
                    body=body,
                    _preload_content=False,
                    _request_timeout=ClientTimeout(connect=_CONNECT_SECONDS, sock_read=silence),
                )
                async with response:
                    if response.status >= 300:
                        raise error_of(response.status, await _refusal(response), _retry_after(response))
                    yield response
        except (ClientError, OSError) as error:  # a TimeoutError is an OSError
            raise UnreachableError(f"{method} {path}: {str(error) or type(error).__name__}") from error


async def _configure(configuration: Configuration, kubeconfig: Path | None, context: str | None) -> None:
    from kubernetes_asyncio.config import ConfigException, load_kube_config
    from kubernetes_asyncio.config.incluster_config import InClusterConfigLoader
    from kubernetes_asyncio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

    token, authority = _SERVICE_ACCOUNT / "token", _SERVICE_ACCOUNT / "ca.crt"
    try:
        if kubeconfig is None and context is None and token.exists():
            InClusterConfigLoader(str(token), str(authority), environ=os.environ).load_and_set(configuration)
        else:
            files = _present(str(kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION))
            await load_kube_config(files, context, client_configuration=configuration, persist_config=False)
    except (ConfigException, OSError, ValueError) as error:
        raise InvalidSettingError(f"no way to the Kubernetes API server: {error}") from error


def _present(files: str) -> str:
    """`files`, a list as KUBECONFIG has it, if one of them is there; else the library would merge nothing."""
    if not any(Path(file).is_file() for file in files.split(os.pathsep)):
        raise InvalidSettingError(f"no way to the Kubernetes API server: there is no kubeconfig {files}")
    return files


async def _refusal(response: ClientResponse) -> str:
    """What the server says about a refusal: the message of a Status object, or the text of whatever is between."""
    text = (await response.content.read(4096)).decode(errors="replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split()) or str(response.reason)


def _retry_after(response: ClientResponse) -> float:
    given = response.headers.get("Retry-After", "")
    return float(given) if given.isdecimal() else 0.0
