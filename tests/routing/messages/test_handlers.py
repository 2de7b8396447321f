"""Typed handlers: what a payload becomes, and what is refused when a handler is registered."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pydantic
import pytest

from workqueue.routing import Context, Message
from workqueue.routing.errors import DecodeError, InvalidPayloadError, UnusableHandlerError
from workqueue.routing.messages.handlers import as_json, handler_of

NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)


@dataclass
class Plain:
    id: int
    at: datetime | None = None

    def validate(self) -> None:
        if self.id < 0:
            raise ValueError("id is negative")


class Record(msgspec.Struct):
    id: int
    at: datetime | None = None

    def validate(self) -> None:
        if self.id < 0:
            raise ValueError("id is negative")


class Model(pydantic.BaseModel):
    id: int
    at: datetime | None = None


class Checked(Model):
    def validate(self) -> None:  # type: ignore[override]
        if self.id < 0:
            raise ValueError("id is negative")


async def takes_plain(payload: Plain) -> None: ...
async def takes_record(payload: Record) -> None: ...
async def takes_model(payload: Model) -> None: ...
async def takes_checked(payload: Checked) -> None: ...
async def takes_either(payload: list[Plain] | None) -> None: ...
async def takes_dict(payload: dict[str, Any]) -> None: ...
async def takes_bytes(payload: bytes) -> None: ...
async def takes_anything(payload) -> None: ...  # type: ignore[no-untyped-def]


def named(value: object) -> str:
    return str(getattr(value, "__qualname__", "")) or type(value).__name__


class Greeter:
    async def greet(self, payload: Plain) -> int:
        return payload.id

    async def __call__(self, payload: Plain) -> int:
        return payload.id


@pytest.mark.parametrize(
    ("function", "raw", "argument"),
    [
        (takes_plain, b'{"id": 1, "at": "2030-01-31T12:00:00Z", "more": 2}', Plain(1, NOON)),
        (takes_record, b'{"id": 1, "at": "2030-01-31T12:00:00Z", "more": 2}', Record(1, NOON)),
        (takes_model, b'{"id": 1, "at": "2030-01-31T12:00:00Z", "more": 2}', Model(id=1, at=NOON)),
        (takes_checked, b'{"id": 1}', Checked(id=1)),
        (takes_either, b'[{"id": 1}]', [Plain(1)]),
        (takes_dict, b'{"id": 1, "a": [null]}', {"id": 1, "a": [None]}),
        (takes_bytes, b"\x00 no JSON", b"\x00 no JSON"),
        (takes_anything, b"[1, true]", [1, True]),
        (Greeter().greet, b'{"id": 1}', Plain(1)),
        (Greeter(), b'{"id": 1}', Plain(1)),
    ],
    ids=named,
)
def test_a_payload_becomes_what_the_handler_takes(function: Any, raw: bytes, argument: object) -> None:
    assert handler_of(function, replies=False).argument(raw) == argument


@pytest.mark.parametrize("function", [takes_plain, takes_record, takes_model, takes_dict], ids=named)
def test_data_that_a_source_has_parsed_already_is_converted(function: Any) -> None:
    from_json = handler_of(function, replies=False).argument(b'{"id": 1}')

    assert handler_of(function, replies=False).argument({"id": 1}) == from_json


@pytest.mark.parametrize("function", [takes_plain, takes_record, takes_model, takes_dict], ids=named)
@pytest.mark.parametrize("raw", [b"", b"no JSON", b"[1]", b"null", b'"text"', b'{"id": 1', b'{"id": 1}x'], ids=str)
def test_what_is_no_json_or_has_the_wrong_shape_is_refused(function: Any, raw: bytes) -> None:
    with pytest.raises(DecodeError):
        handler_of(function, replies=False).argument(raw)


@pytest.mark.parametrize("function", [takes_plain, takes_record, takes_model], ids=named)
@pytest.mark.parametrize("payload", [{"id": "one"}, {"id": None}, {"id": 1.5}, {}, {"id": 1, "at": "noon"}], ids=str)
def test_a_field_of_the_wrong_type_is_refused_and_named(function: Any, payload: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match=r"\bid|\bat"):
        handler_of(function, replies=False).argument(json.dumps(payload).encode())


def test_a_payload_fifty_levels_deep_is_decoded_and_one_of_a_hundred_thousand_refused() -> None:
    deep, bottomless = (b'{"a":' * levels + b"1" + b"}" * levels for levels in (50, 100_000))
    handler = handler_of(takes_dict, replies=False)

    assert json.dumps(handler.argument(deep), separators=(",", ":")).encode() == deep
    with pytest.raises(DecodeError, match="RecursionError"):
        handler.argument(bottomless)


@pytest.mark.parametrize("function", [takes_plain, takes_record, takes_checked], ids=named)
def test_validate_is_called_where_there_is_one(function: Any) -> None:
    with pytest.raises(InvalidPayloadError, match="id is negative"):
        handler_of(function, replies=False).argument(b'{"id": -1}')


def test_the_validate_that_every_pydantic_model_has_is_not_meant() -> None:
    assert handler_of(takes_model, replies=False).argument(b'{"id": -1}') == Model(id=-1)


def test_a_handler_that_takes_nothing_is_refused() -> None:
    async def takes_nothing() -> None: ...

    with pytest.raises(UnusableHandlerError, match="takes_nothing takes no payload"):
        handler_of(takes_nothing, replies=False)


def test_an_annotation_that_cannot_be_resolved_is_refused_and_the_type_may_be_named_instead() -> None:
    @dataclass
    class Local:
        id: int

    async def takes_local(payload: Local) -> None: ...

    with pytest.raises(UnusableHandlerError, match="name 'Local' is not defined"):
        handler_of(takes_local, replies=False)
    assert handler_of(takes_local, Local, replies=False).argument(b'{"id": 1}') == Local(1)


async def test_a_handler_with_a_second_parameter_gets_the_context() -> None:
    async def seen(payload: bytes, context: Context) -> object:
        return payload, context

    context = Context(Message(b"x"), "source", "key")

    assert await handler_of(seen, bytes, replies=True)(b"x", context) == (b"x", context)


async def test_a_plain_function_is_called_in_a_thread() -> None:
    def thread(payload: bytes) -> object:
        return threading.current_thread()

    assert await handler_of(thread, bytes, replies=True)(b"", Context(Message(b""))) is not threading.main_thread()


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({}, b"{}"),
        (None, b"null"),
        (Plain(1), b'{"id":1,"at":null}'),
        (Record(1, NOON), b'{"id":1,"at":"2030-01-31T12:00:00Z"}'),
        ([Model(id=1, at=NOON)], b'[{"id":1,"at":"2030-01-31T12:00:00Z"}]'),
    ],
    ids=str,
)
def test_a_result_becomes_json(result: object, text: bytes) -> None:
    assert as_json(result) == text


def test_a_result_that_does_not_become_json_is_refused() -> None:
    with pytest.raises(TypeError, match="Thread"):
        as_json(threading.current_thread())
