"""A bare client for tests of the emulator itself: what is written is what goes over the wire."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

BOUNDARY = "=-=-boundary-=-="


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The JSON document in the body."""
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def reason(self) -> str:
        """The machine-readable reason of a refusal."""
        reason: str = self.json["error"]["errors"][0]["reason"]
        return reason

    @property
    def message(self) -> str:
        """The message of a refusal."""
        message: str = self.json["error"]["message"]
        return message


class RawClient:
    """One keep-alive connection to a server of the JSON API, with a method for each of the API's.

    Args:
        url: the server.
        bucket: the bucket that object methods use.

    Attributes:
        headers: sent with every request.
    """

    def __init__(self, url: str, bucket: str = "wq") -> None:
        self.url = url
        self.bucket = bucket
        self.headers: dict[str, str] = {}
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def send(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> Answer:
        """Send a request with a path that is encoded already.

        Raises:
            ConnectionError: the server closed the connection without an answer; the next request opens a new one.
        """
        headers = self.headers | ({"Content-Type": content_type} if content_type else {})
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            return Answer(answer.status, dict(answer.headers), answer.read())
        except ConnectionError:
            self._connection.close()
            raise

    def path(self, *segments: str, **params: object) -> str:
        """`/storage/v1/b/…`, each segment percent-encoded, with query parameters."""
        path = "/storage/v1/b" + "".join("/" + quote(segment, safe="") for segment in segments)
        return path + ("?" + urlencode(params) if params else "")

    def call(self, method: str, path: str, document: object = None) -> Answer:
        """Send a JSON document, or nothing."""
        body = None if document is None else json.dumps(document).encode()
        return self.send(method, path, body, "application/json" if body else "")

    def insert(
        self, name: str, body: bytes = b"", metadata: Mapping[str, object] | None = None, **params: object
    ) -> Answer:
        """objects.insert as a multipart upload."""
        return self.upload({"name": name, "metadata": metadata or {}}, body, **params)

    def upload(self, document: Mapping[str, object], body: bytes = b"", **params: object) -> Answer:
        """objects.insert as a multipart upload of any object resource."""
        whole = (
            b"--%b\r\nContent-Type: application/json\r\n\r\n%b\r\n--%b\r\nContent-Type: text/plain\r\n\r\n%b\r\n--%b--"
        )
        mark = BOUNDARY.encode()
        path = "/upload" + self.path(self.bucket, "o", uploadType="multipart", **params)
        content = whole % (mark, json.dumps(document).encode(), mark, body, mark)
        return self.send("POST", path, content, f'multipart/related; boundary="{BOUNDARY}"')

    def get(self, name: str, **params: object) -> Answer:
        """objects.get."""
        return self.call("GET", self.path(self.bucket, "o", name, **params))

    def patch(self, name: str, document: object, **params: object) -> Answer:
        """objects.patch."""
        return self.call("PATCH", self.path(self.bucket, "o", name, **params), document)

    def update(self, name: str, document: object, **params: object) -> Answer:
        """objects.update."""
        return self.call("PUT", self.path(self.bucket, "o", name, **params), document)

    def delete(self, name: str, **params: object) -> Answer:
        """objects.delete."""
        return self.call("DELETE", self.path(self.bucket, "o", name, **params))

    def copy(self, source: str, name: str, document: object = None, **params: object) -> Answer:
        """objects.copy."""
        path = self.path(self.bucket, "o", source, "copyTo", "b", self.bucket, "o", name, **params)
        return self.call("POST", path, document)

    def rewrite(self, source: str, name: str, document: object = None, **params: object) -> Answer:
        """objects.rewrite."""
        path = self.path(self.bucket, "o", source, "rewriteTo", "b", self.bucket, "o", name, **params)
        return self.call("POST", path, document)

    def list_objects(self, **params: object) -> Answer:
        """objects.list."""
        return self.call("GET", self.path(self.bucket, "o", **params))

    def pages(self, **params: object) -> list[dict[str, Any]]:
        """objects.list, all pages. Raises: AssertionError when a page token comes twice, as it would for ever."""
        pages = [self.list_objects(**params).json]
        while token := pages[-1].get("nextPageToken"):
            assert all(token != page.get("nextPageToken") for page in pages[:-1])
            pages.append(self.list_objects(**params, pageToken=token).json)
        return pages
