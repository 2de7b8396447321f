"""Stage 5: a handler: what its signature says it takes, and how a payload becomes that."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec

from workqueue.attempt import in_thread
from workqueue.raised import as_one
from workqueue.routing.errors import DecodeError, InvalidPayloadError, UnusableHandlerError
from workqueue.routing.messages.message import Context

__all__ = ["Handler", "as_json", "handler_of"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_Decode = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Handler:
    """A function and how to call it.

    Args:
        function: a coroutine function, or a plain one, which is called in a thread of its own.
        replies: its result is the answer; else the answer is `{}`.
        takes_context: it is called with the `Context` too.
        from_json: makes its argument from bytes of JSON.
        from_data: makes its argument from anything else.
    """

    function: Callable[..., Any]
    replies: bool
    takes_context: bool
    is_async: bool
    from_json: _Decode
    from_data: _Decode

    def argument(self, payload: object) -> Any:
        """What to call the function with.

        Raises:
            DecodeError: the payload is not what it takes.
            InvalidPayloadError: its `validate` refused it.
        """
        try:
            argument = (self.from_json if isinstance(payload, bytes) else self.from_data)(payload)
        except Exception as error:
            raise DecodeError(f"{type(error).__name__}: {error}") from error
        validate = getattr(argument, "validate", None)
        if validate is not None and _is_own(type(argument)):
            try:
                validate()
            except Exception as error:
                raise InvalidPayloadError(f"{type(error).__name__}: {error}") from error
        return argument

    async def __call__(self, argument: Any, context: Context) -> Any:
        args = (argument, context) if self.takes_context else (argument,)
        try:
            if self.is_async:
                return await self.function(*args)
            return await in_thread(self.function, *args, attempt=context.attempt)
        except BaseExceptionGroup as group:
            error = as_one(group)
            raise error from error.__cause__


def handler_of(function: Callable[..., Any], payload: Any = None, *, replies: bool) -> Handler:
    """The handler that `function` is.

    Args:
        function: takes the payload, and the context if it has a second parameter.
        payload: the type of the payload, where the annotation of the first parameter does not say it.
        replies: whether its result is an answer.

    Raises:
        UnusableHandlerError: it takes no payload, or its annotation cannot be resolved or decoded into.
    """
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind in _POSITIONAL]
    if not parameters:
        raise UnusableHandlerError(f"{_name(function)} takes no payload; give it a parameter")
    wanted = _annotated(function, parameters[0].name) if payload is None else payload
    from_json, from_data = _decoders(function, wanted)
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
    return Handler(function, replies, len(parameters) > 1, is_async, from_json, from_data)


def _annotated(function: Callable[..., Any], parameter: str) -> Any:
    hinted = function if inspect.isroutine(function) else type(function).__call__
    try:
        return get_type_hints(hinted, include_extras=True).get(parameter, Any)
    except NameError as error:
        advice = "define it at the top of its module, or name it: @router.proc(key, payload=…)"
        raise UnusableHandlerError(
            f"the annotation of {_name(function)} cannot be resolved ({error}): {advice}"
        ) from error


def _decoders(function: Callable[..., Any], wanted: Any) -> tuple[_Decode, _Decode]:
    """How JSON, and how other data, becomes `wanted`; bytes are handed on as they are."""
    if wanted is bytes:
        return _as_it_is, msgspec.json.encode
    if hasattr(wanted, "__get_pydantic_core_schema__"):
        from pydantic import TypeAdapter  # who has such a type has pydantic

        adapter = TypeAdapter(wanted)
        return adapter.validate_json, adapter.validate_python
    try:
        return msgspec.json.Decoder(wanted).decode, lambda data: msgspec.convert(data, wanted)
    except (TypeError, NameError) as error:
        raise UnusableHandlerError(
            f"{_name(function)} takes {wanted!r}, which nothing is decoded into: {error}"
        ) from error


def _as_it_is(payload: bytes) -> bytes:
    return payload


def _is_own(kind: type) -> bool:
    """Whether `validate` is the payload's own: every pydantic model has one, which is something else."""
    owner = next((cls for cls in kind.__mro__ if "validate" in vars(cls)), kind)
    return not owner.__module__.startswith("pydantic.")


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def as_json(result: object) -> bytes:
    """What a handler returned, as JSON: a dataclass, a Struct, a pydantic model, or plain data.

    Raises:
        TypeError: it is something else.
    """
    return msgspec.json.encode(result, enc_hook=_encodable)


def _encodable(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} does not become JSON")
    return dump(mode="json")
