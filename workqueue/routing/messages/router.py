"""Stage 5: from a raw message to the handler that it is for, and back to whoever waits for an answer.

    inspect (once a format) → the first source that says "mine" → parse → handler by key → decode → validate → call

Sources are asked in the order in which they were registered, whatever came before: which one wins hangs on the message
alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from workqueue.attempt import Attempt
from workqueue.clock import Clock, SystemClock
from workqueue.outcomes import QueueKeys, RequeueAfter
from workqueue.routing.errors import DuplicateRouteError, NoHandlerError, NoSourceError, ParseError, RoutingError
from workqueue.routing.messages.handlers import Handler, handler_of
from workqueue.routing.messages.hooks import Chain, Hooks
from workqueue.routing.messages.inspectors import Inspector, View
from workqueue.routing.messages.matching import Matching
from workqueue.routing.messages.message import NO_HEADERS, Context, Message, Parsed, Processed, Replier
from workqueue.routing.messages.source import Source
from workqueue.routing.routes import Routes

__all__ = ["Router"]

log = logging.getLogger(__name__)

_F = TypeVar("_F", bound=Callable[..., Any])


class _Taker:
    """A registered source, with the hooks that are called for its messages."""

    __slots__ = ("hooks", "name", "parse")

    def __init__(self, source: Source, hooks: Iterable[Hooks]) -> None:
        self.name, self.parse = source.name, source.parse
        self.hooks = Chain([*hooks, source.hooks])


class Router:
    """Hands each message to the handler that is registered for it. Transports feed it through `process`.

    Args:
        sources: where messages come from; `add`, `group` and `source` register more.
        hooks: called for messages of every source, before the source's own.
        clock: what handlers are timed by.
    """

    def __init__(self, *sources: Source, hooks: Hooks | Iterable[Hooks] = (), clock: Clock | None = None) -> None:
        self._hooks = (hooks,) if isinstance(hooks, Hooks) else tuple(hooks)
        self._clock = clock or SystemClock()
        self._handlers: Routes[Handler] = Routes()
        self._names: set[str] = set()
        # Neighbours that have one inspector are kept together, with the number of the first run that has the same one.
        self._runs: list[tuple[Inspector, int | None, Matching[_Taker]]] = []
        self._unknown = Chain(self._hooks)
        self.add(*sources)

    def add(self, *sources: Source) -> None:
        """Register sources, after those that are registered already.

        Raises:
            DuplicateRouteError: a source of that name is registered already.
        """
        for source in sources:
            if source.name in self._names:
                raise DuplicateRouteError(f"a source {source.name!r} is registered already")
            self._names.add(source.name)
            if not self._runs or self._runs[-1][0] is not source.inspector:
                first = next((n for n, run in enumerate(self._runs) if run[0] is source.inspector), None)
                self._runs.append((source.inspector, first, Matching()))
            self._runs[-1][2].add(source.when, _Taker(source, self._hooks))

    def group(self, inspector: Inspector, *sources: Source) -> None:
        """Register sources whose messages `inspector` looks into; otherwise as `add`."""
        self.add(*(replace(source, inspector=inspector) for source in sources))

    def proc(self, key: str, *, payload: Any = None) -> Callable[[_F], _F]:
        """Register the decorated function for messages with this key; who waits for an answer gets `{}`.

        Where several keys fit, exactly this one is taken, else the longest prefix that ends at a `:`, `/` or `.`, else
        the one registered under ''.

        Args:
            key: a key, or the beginning of several.
            payload: the type of the payload, where the annotation of the function's first parameter does not say it.

        Raises:
            DuplicateRouteError: `key` has a handler.
            UnusableHandlerError: the function takes no payload, or nothing can be decoded into what it takes.
        """
        return self._registering(key, payload, replies=False)

    def func(self, key: str, *, payload: Any = None) -> Callable[[_F], _F]:
        """As `proc`, but who waits for an answer gets what the function returns."""
        return self._registering(key, payload, replies=True)

    async def process(
        self, raw: bytes, headers: Mapping[str, str] = NO_HEADERS, attempt: Attempt | None = None
    ) -> Processed:
        """Hand one message to its handler, and answer who waits for it.

        Args:
            raw: the message.
            headers: what came beside it, names in lower case.
            attempt: of the key that carries the message, where it came from a queue.

        Raises:
            RoutingError: it reached no handler, and no hook decided to skip it.
            RequeueAfter, QueueKeys: the handler asks it of the transport. Nobody is answered before a requeue.
            Exception: what the handler raised, or what answering raised.
        """
        message = Message(raw, headers)
        unread: list[Exception] = []
        found = self._find(message, unread)
        if found is None:
            error = NoSourceError(len(message.raw), unread)
            if "on_no_source" not in self._unknown.steps:
                raise error  # at once: most of what a message that is nobody's costs would be the way up
            return await _skipped(self._unknown, Context(message), error)
        taker, view = found
        try:
            parsed = taker.parse(message, view)
        except Exception as error:  # noqa: BLE001 - it is raised as the cause of what follows
            refused = ParseError(f"the source {taker.name!r} cannot parse a message: {type(error).__name__}: {error}")
            refused.__cause__ = error
            return await _skipped(taker.hooks, Context(message, taker.name), refused)
        return await self._answered(taker, parsed, Context(message, taker.name, parsed.key, attempt=attempt))

    async def _answered(self, taker: _Taker, parsed: Parsed, context: Context) -> Processed:
        asked: QueueKeys | None = None
        try:
            processed = await self._handled(taker.hooks, parsed, context)
        except QueueKeys as keys:
            asked, processed = keys, Processed(taker.name, parsed.key, {})
        except RequeueAfter:
            raise
        except Exception as error:
            if parsed.replier is not None:
                await _fail(parsed.replier, context, error)
            raise
        if parsed.replier is not None:
            await parsed.replier.reply(processed.result)
        if asked is not None:
            raise asked
        return processed

    async def _handled(self, hooks: Chain, parsed: Parsed, context: Context) -> Processed:
        if "on_parse" in hooks.steps:
            context = await hooks.parsed(context)
        try:
            handler, argument = self._prepared(parsed)
        except RoutingError as error:
            return await _skipped(hooks, context, error)
        if "on_dispatch" in hooks.steps:
            await hooks.watch("on_dispatch", context)
        called = self._timed(hooks, handler, argument, context) if hooks.watches_end else handler(argument, context)
        result = await called
        if isinstance(result, RequeueAfter | QueueKeys):
            raise result
        return Processed(context.source, context.key, result if handler.replies else {})

    async def _timed(self, hooks: Chain, handler: Handler, argument: Any, context: Context) -> Any:
        began_us = self._clock.steady_us()
        try:
            result = await handler(argument, context)
        except QueueKeys as asked:
            result = asked
        except RequeueAfter:
            raise
        except Exception as error:
            await hooks.watch("on_failure", context, error, self._since(began_us))
            raise
        if not isinstance(result, RequeueAfter):
            await hooks.watch("on_success", context, self._since(began_us))
        return result

    def _prepared(self, parsed: Parsed) -> tuple[Handler, Any]:
        handler = self._handlers.find(parsed.key)
        if handler is None:
            raise NoHandlerError(f"no handler takes the key {parsed.key!r}")
        return handler, handler.argument(parsed.payload)

    def _find(self, message: Message, unread: list[Exception]) -> tuple[_Taker, View] | None:
        """The first source that takes the message; `unread` is filled with why inspectors did not read it."""
        views: list[View | None] = []
        for inspector, first, takers in self._runs:
            if first is not None:
                view = views[first]
            else:
                try:
                    view = inspector(message)
                except Exception as error:  # noqa: BLE001 - the message has another format; if none fits, this is shown
                    unread.append(error)
                    view = None
            views.append(view)
            taker = None if view is None else takers.find(view)
            if taker is not None and view is not None:
                return taker, view
        return None

    def _registering(self, key: str, payload: Any, *, replies: bool) -> Callable[[_F], _F]:
        def register(function: _F) -> _F:
            self._handlers.add(key, handler_of(function, payload, replies=replies))
            return function

        return register

    def _since(self, began_us: int) -> timedelta:
        return timedelta(microseconds=self._clock.steady_us() - began_us)


async def _skipped(hooks: Chain, context: Context, error: RoutingError) -> Processed:
    """What a message ends as that reached no handler, unless a hook, or there being none, makes it fail."""
    await hooks.decide(context, error)
    return Processed(context.source, context.key, {}, error)


async def _fail(replier: Replier, context: Context, error: Exception) -> None:
    """Say that the message failed; when that fails too, the first error is still the one that the transport sees."""
    try:
        await replier.fail(error)
    except Exception as unanswered:
        log.exception("no failure could be sent to who waits for a message", extra={"key": context.key})
        error.add_note(f"no failure could be sent to who waits for it: {type(unanswered).__name__}: {unanswered}")
