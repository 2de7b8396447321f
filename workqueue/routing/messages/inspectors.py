"""Stage 5: a cheap first look at a message, as a mapping of its fields: enough for sources to say whether it is theirs.

An inspector is called at most once for each message. What it raises means that the message is not of its format.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, KeysView, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from workqueue.routing.messages.message import Message

__all__ = ["MISSING", "Inspector", "JsonView", "Path", "View", "at", "inspect_cloud_event", "inspect_json", "names_of"]

View = Mapping[str, Any]

Inspector = Callable[[Message], View]
"""Given a message, a view of its fields; raises when it is not of this format."""

Path = str | tuple[str, ...]
"""Where a field is: names with dots between them, `detail.bucket`, or a tuple of names when they have dots."""

MISSING: Any = object()

_top_level = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_any = msgspec.json.Decoder().decode
_REQUIRED = ("id", "source", "specversion", "type")


class JsonView(dict[str, Any]):
    """The fields of a JSON object. A field is decoded when somebody asks for it, and kept: a payload may be large.

    What was decoded lies in the dict itself, where discriminators find it as fast as in any dict; `__missing__` decodes
    what was not. To its reader it is a mapping of all fields.
    """

    __slots__ = ("_names", "_raw")

    def __init__(self, raw: dict[str, msgspec.Raw], values: Mapping[str, Any] | None = None) -> None:
        self._raw = raw
        self._names: Mapping[str, Any] = raw
        if values:
            self.update(values)
            self._names = {**raw, **values}

    def __missing__(self, name: str) -> Any:
        value = self[name] = _any(self._raw[name])
        return value

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self._names else default

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        return self._names.keys()

    values, items, __eq__ = Mapping.values, Mapping.items, Mapping.__eq__  # type: ignore[assignment]

    def raw(self, names: tuple[str, ...]) -> object:
        """The JSON text of a field, as it was received; its value where that is no JSON; MISSING if there is none."""
        fields = self._raw
        for name in names[:-1]:
            if name not in fields:
                return at(self, names)
            fields = _top_level(fields[name])
        found = fields.get(names[-1])
        return at(self, names) if found is None else bytes(found)


def inspect_json(message: Message) -> JsonView:
    """A JSON object. Only where its fields begin and end is looked for; none of them is decoded yet."""
    return JsonView(_fields(message.raw))


def inspect_cloud_event(message: Message) -> JsonView:
    """A CloudEvent: structured (one JSON object) or binary (attributes in `ce-` headers), the fields named alike.

    `data` is the event's data; extensions are fields too.

    Source: CloudEvents 1.0.2, HTTP Protocol Binding, sections 3.1 and 3.2.

    Raises:
        ValueError: it is no CloudEvent, or a required attribute is missing.
    """
    view = _binary(message) if "ce-specversion" in message.headers else _structured(message)
    for name in _REQUIRED:
        if not isinstance(value := view.get(name), str) or not value:
            raise ValueError(f"a CloudEvent has the attribute {name!r}, a text that is not empty")
    return view


def _binary(message: Message) -> JsonView:
    values: dict[str, Any] = {
        name[3:]: unquote(value) for name, value in message.headers.items() if name.startswith("ce-")
    }
    content_type = message.headers.get("content-type", "application/json")
    values["datacontenttype"] = content_type
    if _is_json(content_type) and message.raw:
        return JsonView({"data": msgspec.Raw(message.raw)}, values)
    return JsonView({}, {**values, "data": message.raw})


def _structured(message: Message) -> JsonView:
    fields = _fields(message.raw)
    if "data_base64" in fields:
        return JsonView(fields, {"data": b64decode(_any(fields["data_base64"]), validate=True)})
    return JsonView(fields)


def _fields(raw: bytes) -> dict[str, msgspec.Raw]:
    raw.isascii() or str(raw, "utf-8")  # which msgspec does not check in what it leaves undecoded
    return _top_level(raw)


def _is_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().lower()
    return media.endswith(("/json", "+json"))


def names_of(path: Path) -> tuple[str, ...]:
    """The names along a path."""
    return path if isinstance(path, tuple) else tuple(path.split("."))


def at(view: View, names: tuple[str, ...]) -> Any:
    """The field at a path; MISSING if there is none."""
    found: Any = view
    try:
        for name in names:
            found = found[name]
    except (LookupError, TypeError):  # not there, or on the way there is something that has no fields
        return MISSING
    return found
