"""From an HTTP request line to a method of the JSON API, strictly.

The real service ignores query parameters it does not know. This one refuses them, and refuses a precondition on a
method that has none: a misspelt `ifGenerationMatch` must fail a test, not silently drop the pin.

Sources: https://cloud.google.com/storage/docs/json_api/v1/objects and the page of each method below it;
https://cloud.google.com/storage/docs/request-endpoints#encoding (object names are one percent-encoded segment).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote

from tests.fakes.gcs.errors import ApiError, invalid, invalid_parameter, no_such_path, not_emulated
from tests.fakes.gcs.listing import MAX_RESULTS, ListQuery, decode_token
from tests.fakes.gcs.store import Preconditions, Target

# https://cloud.google.com/storage/docs/json_api/v1/parameters
STANDARD = frozenset({"alt", "fields", "key", "prettyPrint", "projection", "quotaUser", "userProject"})
PINS = frozenset({"ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch", "ifMetagenerationNotMatch"})
SOURCE_PINS = frozenset(pin.replace("if", "ifSource") for pin in PINS)
ACL = frozenset({"predefinedAcl"})
COPY = PINS | SOURCE_PINS | {"sourceGeneration", "destinationPredefinedAcl", "destinationKmsKeyName"}

# What Google's Go client spells out with every list; anything but these defaults is not emulated.
LIST_DEFAULTS = {
    "versions": "false",
    "includeTrailingDelimiter": "false",
    "includeFoldersAsPrefixes": "false",
    "matchGlob": "",
}

PARAMETERS: dict[str, frozenset[str]] = {
    "get": PINS | {"generation"},
    "patch": PINS | ACL | {"generation"},
    "update": PINS | ACL | {"generation"},
    "delete": PINS | {"generation"},
    "insert": PINS | ACL | {"name", "uploadType", "contentEncoding", "kmsKeyName"},
    "copy": COPY,
    "rewrite": COPY | {"maxBytesRewrittenPerCall", "rewriteToken"},
    "list": frozenset({"prefix", "delimiter", "startOffset", "endOffset", "pageToken", "maxResults", *LIST_DEFAULTS}),
    "buckets.get": frozenset({"ifMetagenerationMatch", "ifMetagenerationNotMatch"}),
    "buckets.insert": ACL | {"project", "predefinedDefaultObjectAcl"},
}

# What one request costs: https://cloud.google.com/storage/pricing#operations-by-class
CLASSES = dict.fromkeys(PARAMETERS, "A") | {"get": "B", "buckets.get": "B", "delete": "free"}

OBJECT_METHODS = {"GET": "get", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
COPY_METHODS = {"copyTo": "copy", "rewriteTo": "rewrite"}


@dataclass(frozen=True, slots=True)
class Upload:
    """What an insert brings: an object resource, the type of the media, and the media."""

    document: Mapping[str, Any]
    media_type: str
    media: bytes


NO_UPLOAD = Upload({}, "", b"")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, understood.

    Attributes:
        operation: `get`, `insert`, `patch`, `update`, `delete`, `copy`, `rewrite`, `list`, `buckets.get` or
            `buckets.insert`.
        method: the HTTP method.
        name: the object; the destination of a copy; the `prefix` of a list.
        source: the source object of a copy.
        params: the query parameters.
        upload: what an insert brings.
    """

    operation: str
    method: str
    bucket: str = ""
    name: str = ""
    source_bucket: str = ""
    source: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    upload: Upload = NO_UPLOAD

    def integer(self, name: str) -> int | None:
        """An int64 parameter; None when absent. Raises: ApiError 400 for anything but a number."""
        text = self.params.get(name)
        if text is None:
            return None
        if not re.fullmatch(r"-?[0-9]{1,19}", text):
            raise invalid_parameter(name, f"Invalid long value: '{text}'.")
        return int(text)

    def pins(self, prefix: str = "if") -> Preconditions:
        """The preconditions, of the object or with `ifSource` of a copy's source. Raises: ApiError 400."""
        return Preconditions(
            self.integer(f"{prefix}GenerationMatch"),
            self.integer(f"{prefix}GenerationNotMatch"),
            self.integer(f"{prefix}MetagenerationMatch"),
            self.integer(f"{prefix}MetagenerationNotMatch"),
        )

    def target(self) -> Target:
        """The object the request is about. Raises: ApiError 400."""
        return Target(self.bucket, self.name, self.integer("generation") or 0, self.pins())

    def source_target(self) -> Target:
        """The source of a copy. Raises: ApiError 400."""
        generation = self.integer("sourceGeneration") or 0
        return Target(self.source_bucket, self.source, generation, self.pins("ifSource"))

    def list_query(self) -> ListQuery:
        """What a list asks for. Raises: ApiError 400, or 501 for what is not emulated."""
        for name, default in LIST_DEFAULTS.items():
            if self.params.get(name, default) != default:
                raise not_emulated(f"{name} other than {default!r}")
        limit = self.integer("maxResults")
        if limit is not None and limit < 1:
            raise invalid_parameter(
                "maxResults", f"Invalid value '{limit}'. Values must be within the range: [1, 1000]"
            )
        token = self.params.get("pageToken", "")
        return ListQuery(
            prefix=self.params.get("prefix", ""),
            delimiter=self.params.get("delimiter", ""),
            start=self.params.get("startOffset", ""),
            end=self.params.get("endOffset", ""),
            after=decode_token(token) if token else "",
            limit=min(limit or MAX_RESULTS, MAX_RESULTS),
        )


def understand(method: str, raw_path: str) -> Call:
    """Read a request line; `raw_path` is as it came, still percent-encoded.

    Raises:
        ApiError: 404 for a path that is no method of the API, 400 for a parameter that its method does not take, and
            for names that are not UTF-8.
    """
    path, _, query = raw_path.partition("?")
    try:
        params = dict(parse_qsl(query, keep_blank_values=True, errors="strict")) if query else {}
        call = route(method, path, params)
    except UnicodeDecodeError:
        raise invalid("The URL is not valid UTF-8.") from None
    if not params.keys() <= PARAMETERS[call.operation] | STANDARD:
        unknown = min(params.keys() - PARAMETERS[call.operation] - STANDARD)
        raise invalid_parameter(unknown, f"{call.operation} takes no parameter {unknown}")
    return call


def route(method: str, path: str, params: Mapping[str, str]) -> Call:
    """Find the method of the API. Raises: ApiError 404."""
    root, _, rest = path.partition("/v1/b")
    if rest and not rest.startswith("/"):
        raise no_such_path()
    segments = [unquote(segment, errors="strict") for segment in rest.split("/")[1:]]
    match root, method, segments:
        case (("/storage" | "/download/storage"), "GET", [bucket, "o", name]) if name:
            return Call("get", method, bucket, name, params=params)
        case "/storage", ("PATCH" | "PUT" | "DELETE"), [bucket, "o", name] if name:
            return Call(OBJECT_METHODS[method], method, bucket, name, params=params)
        case "/upload/storage", "POST", [bucket, "o"]:
            return Call("insert", method, bucket, params.get("name", ""), params=params)
        case "/storage", "POST", [source_bucket, "o", source, ("copyTo" | "rewriteTo") as verb, "b", bucket, "o", name]:
            return Call(COPY_METHODS[verb], method, bucket, name, source_bucket, source, params)
        case "/storage", "GET", [bucket, "o"]:
            return Call("list", method, bucket, params.get("prefix", ""), params=params)
        case "/storage", "GET", [bucket] if bucket:
            return Call("buckets.get", method, bucket, params=params)
        case "/storage", "POST", []:
            return Call("buckets.insert", method, params=params)
    raise no_such_path()


def with_upload(call: Call, content_type: str, body: bytes) -> Call:
    """Complete an insert by its body, which may hold the object's name.

    Raises:
        ApiError: 400 for an upload without a name or one that cannot be read, 501 for resumable uploads.
    """
    upload = read_upload(call.params.get("uploadType", ""), content_type, body)
    name = call.name or upload.document.get("name") or ""
    if not name or not isinstance(name, str):
        raise ApiError(400, "required", "Required", location=("parameter", "name"))
    return replace(call, name=name, upload=upload)


def read_upload(kind: str, content_type: str, body: bytes) -> Upload:
    """Take an upload apart. Raises: ApiError 400, or 501 for resumable uploads."""
    match kind:
        case "media":
            return Upload({}, content_type, body)
        case "multipart":
            return parse_multipart(content_type, body)
        case "resumable":
            raise not_emulated("A resumable upload")
    raise invalid_parameter("uploadType", "Upload requests must include an uploadType URL parameter.")


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object; an absent body is an empty one. Raises: ApiError 400."""
    if not body:
        return {}
    try:
        document = json.loads(body)
    except ValueError:
        raise parse_error() from None
    if not isinstance(document, dict):
        raise parse_error()
    return document


def parse_error() -> ApiError:
    """400 for a body that cannot be read."""
    return ApiError(400, "parseError", "Parse Error")


def parse_multipart(content_type: str, body: bytes) -> Upload:
    """Split a `multipart/related` upload into metadata, media type and media.

    Raises:
        ApiError: 400 unless there are exactly two parts, the first of them JSON.
    """
    boundary = re.search(r'boundary="?([^";]+)"?', content_type)
    if not content_type.startswith("multipart/related") or boundary is None:
        raise invalid("A multipart upload takes Content-Type: multipart/related with a boundary.")
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())
    if len(parts) != 4 or not parts[3].startswith(b"--"):
        raise invalid("A multipart upload has exactly two parts: metadata and media.")
    metadata_type, metadata = split_part(parts[1])
    media_type, media = split_part(parts[2])
    if not metadata_type.startswith("application/json"):
        raise invalid("The first part of a multipart upload is application/json.")
    return Upload(parse_json(metadata), media_type, media)


def split_part(part: bytes) -> tuple[str, bytes]:
    """The content type and the content of one part of a multipart body."""
    head, _, content = part.partition(b"\r\n\r\n")
    found = re.search(rb"(?im)^content-type:[ \t]*([^\r\n]+)", head)
    return (found[1].decode("latin-1") if found else ""), content
