"""The methods of the JSON API: from a request understood to an answer, in one synchronous step.

Sources: https://cloud.google.com/storage/docs/json_api/v1/objects and the page of each method below it.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tests.fakes.gcs.errors import ApiError, invalid, invalid_parameter, not_emulated
from tests.fakes.gcs.fields import parse_fields, select
from tests.fakes.gcs.objects import StoredObject, attributes_of, md5_hash
from tests.fakes.gcs.requests import Call, parse_json
from tests.fakes.gcs.store import Store, Target

JSON = "application/json; charset=UTF-8"
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Service:
    """Carries out calls on a store.

    Args:
        store: the data.

    Attributes:
        root: the server's own URL, for the links in resources.
    """

    def __init__(self, store: Store) -> None:
        self.root = ""
        self._store = store
        self._methods = {
            "get": self._get,
            "insert": self._insert,
            "patch": self._patch,
            "update": self._update,
            "delete": self._delete,
            "copy": self._copy,
            "rewrite": self._rewrite,
            "list": self._list,
            "buckets.get": self._get_bucket,
            "buckets.insert": self._insert_bucket,
        }

    def carry_out(self, call: Call, body: bytes) -> Reply:
        """Process a request, from preconditions to the answer, atomically; a refusal is an answer too."""
        try:
            self._check_billing(call)
            return self._methods[call.operation](call, body)
        except ApiError as refusal:
            return refuse(refusal, media=call.params.get("alt") == "media")

    def _check_billing(self, call: Call) -> None:
        """Of a bucket whose requesters pay, refuse who does not say which project pays."""
        if call.operation == "buckets.insert" or "userProject" in call.params:
            return
        if self._store.requesters_pay(call.bucket):
            raise ApiError(
                HTTPStatus.BAD_REQUEST, "required", "Bucket is requester pays bucket but no user project provided."
            )

    def _json(self, call: Call, document: dict[str, Any]) -> Reply:
        fields = call.params.get("fields")
        kept = select(document, parse_fields(fields)) if fields else document
        return Reply(HTTPStatus.OK, ENCODER.encode(kept).encode())

    def _object(self, call: Call, stored: StoredObject) -> Reply:
        return self._json(call, stored.resource(self.root))

    def _get(self, call: Call, body: bytes) -> Reply:
        stored = self._store.get(call.target())
        if call.params.get("alt", "json") == "json":
            return self._object(call, stored)
        headers = {
            "x-goog-generation": str(stored.generation),
            "x-goog-metageneration": str(stored.metageneration),
            "x-goog-hash": f"md5={stored.md5}",
            "x-goog-stored-content-length": str(len(stored.body)),
        }
        media_type = stored.attributes.fields.get("contentType", "application/octet-stream")
        return Reply(HTTPStatus.OK, stored.body, media_type, headers)

    def _insert(self, call: Call, body: bytes) -> Reply:
        upload = call.upload
        document = upload.document
        if document.get("bucket", call.bucket) != call.bucket:
            raise invalid("The bucket in the metadata is not the bucket of the URL.")
        if document.get("md5Hash", "") not in ("", md5_hash(upload.media)):
            raise invalid("Provided MD5 hash does not match the MD5 hash calculated for the uploaded content.")
        attributes = attributes_of({"contentType": upload.media_type or None, **document})
        target = Target(call.bucket, call.name, 0, call.pins())
        return self._object(call, self._store.insert(target, attributes, upload.media))

    def _patch(self, call: Call, body: bytes) -> Reply:
        return self._object(call, self._store.patch(call.target(), parse_json(body)))

    def _update(self, call: Call, body: bytes) -> Reply:
        return self._object(call, self._store.update(call.target(), parse_json(body)))

    def _delete(self, call: Call, body: bytes) -> Reply:
        self._store.delete(call.target())
        return Reply(HTTPStatus.NO_CONTENT)

    def _copied(self, call: Call, body: bytes) -> StoredObject:
        target = Target(call.bucket, call.name, 0, call.pins())
        return self._store.copy(call.source_target(), target, attributes_of(parse_json(body)))

    def _copy(self, call: Call, body: bytes) -> Reply:
        return self._object(call, self._copied(call, body))

    def _rewrite(self, call: Call, body: bytes) -> Reply:
        if "rewriteToken" in call.params:
            raise invalid_parameter("rewriteToken", "Invalid rewrite token: every rewrite here is done at once.")
        stored = self._copied(call, body)
        size = str(len(stored.body))
        document = {
            "kind": "storage#rewriteResponse",
            "totalBytesRewritten": size,
            "objectSize": size,
            "done": True,
            "resource": stored.resource(self.root),
        }
        return self._json(call, document)

    def _list(self, call: Call, body: bytes) -> Reply:
        stored, page = self._store.list_objects(call.bucket, call.list_query())
        document: dict[str, Any] = {"kind": "storage#objects"}
        if page.next_token:
            document["nextPageToken"] = page.next_token
        if page.prefixes:
            document["prefixes"] = page.prefixes
        if stored:  # an empty page has no items field at all
            wanted = item_fields(call.params.get("fields"))
            document["items"] = [item.resource(self.root, wanted) for item in stored]
        return self._json(call, document)

    def _get_bucket(self, call: Call, body: bytes) -> Reply:
        if call.params.keys() & {"ifMetagenerationMatch", "ifMetagenerationNotMatch"}:
            raise not_emulated("A precondition on a bucket")
        return self._json(call, self._store.get_bucket(call.bucket).resource(self.root))

    def _insert_bucket(self, call: Call, body: bytes) -> Reply:
        fields = parse_json(body)
        name = fields.pop("name", None)
        if not isinstance(name, str) or not name or "project" not in call.params:
            raise ApiError(HTTPStatus.BAD_REQUEST, "required", "Required parameter: name and project")
        return self._json(call, self._store.create_bucket(name, **fields).resource(self.root))


def item_fields(fields: str | None) -> Container[str] | None:
    """The fields of a listed object that `fields` keeps, so that the others need not be made; None for all."""
    items = parse_fields(fields).get("items") if fields else None
    return None if not items or "*" in items else items.keys()


def refuse(refusal: ApiError, *, media: bool = False) -> Reply:
    """The answer to a refused request: JSON, or bare text where the body of an object was asked for."""
    if media and refusal.status != HTTPStatus.NOT_MODIFIED:
        return Reply(refusal.status, refusal.message.encode(), "text/html; charset=UTF-8")
    return Reply(refusal.status, refusal.body())
