"""Stage 5: what a user may do at each step of a message: watch it, add to its context, decide what an error means."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from workqueue.routing.errors import RoutingError
from workqueue.routing.messages.message import Context

__all__ = ["NO_HOOKS", "Chain", "Decide", "Enrich", "Hooks", "Watch", "WatchFailure", "WatchSuccess"]

log = logging.getLogger(__name__)

Enrich = Callable[[Context], Context | Awaitable[Context | None] | None]
Watch = Callable[[Context], Awaitable[None] | None]
WatchSuccess = Callable[[Context, timedelta], Awaitable[None] | None]
WatchFailure = Callable[[Context, Exception, timedelta], Awaitable[None] | None]
Decide = Callable[[Context, RoutingError], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Hooks:
    """Functions, plain ones or coroutine functions, that are called with the `Context` of each message.

    Those of the router are called first, then the source's own.

    Args:
        on_parse: a source has found key and payload. May return a new context; what it raises fails the message.
        on_dispatch: the handler is about to be called.
        on_success: it returned; how long it took.
        on_failure: it raised; what, and after how long. The error goes on to the transport whatever this does.
        on_no_source: no source takes the message.
        on_parse_error: its source cannot find its key and payload.
        on_no_handler: no handler takes its key.
        on_decode_error: its payload is not what the handler takes.
        on_validation_error: the `validate` of its payload refused it.

    The last five decide. If one of those that are called raises, the message fails with what it raised; if all return,
    the message is skipped, which counts as handled; if there is none, the message fails with the error.

    The three in between only watch: what they raise is logged, since it must not make a handled message fail.
    """

    on_parse: Enrich | None = None
    on_dispatch: Watch | None = None
    on_success: WatchSuccess | None = None
    on_failure: WatchFailure | None = None
    on_no_source: Decide | None = None
    on_parse_error: Decide | None = None
    on_no_handler: Decide | None = None
    on_decode_error: Decide | None = None
    on_validation_error: Decide | None = None


NO_HOOKS = Hooks()


class Chain:
    """The hooks of one source, step by step: the router's in their order, then its own."""

    def __init__(self, hooks: Sequence[Hooks]) -> None:
        self._at = {field.name: _set(hooks, field.name) for field in fields(Hooks)}
        self.steps = frozenset(step for step, called in self._at.items() if called)
        """Those that have a hook."""

        self.watches_end = not self.steps.isdisjoint(("on_success", "on_failure"))

    async def parsed(self, context: Context) -> Context:
        """The context that the `on_parse` hooks made of `context`."""
        for hook in self._at["on_parse"]:
            context = await _called(hook, context) or context
        return context

    async def watch(self, step: str, context: Context, *details: object) -> None:
        """Call the hooks of a step that only watch."""
        for hook in self._at[step]:
            try:
                await _called(hook, context, *details)
            except Exception:
                log.exception("the hook %s raised; the message goes on", step, extra={"key": context.key})

    async def decide(self, context: Context, error: RoutingError) -> None:
        """Return if the message is to be skipped, raise what it is to fail with otherwise."""
        hooks = self._at[error.hook]
        if not hooks:
            raise error
        for hook in hooks:
            await _called(hook, context, error)


def _set(hooks: Sequence[Hooks], step: str) -> tuple[Callable[..., Any], ...]:
    return tuple(hook for each in hooks if (hook := getattr(each, step)) is not None)


async def _called(hook: Callable[..., Any], *args: object) -> Any:
    result = hook(*args)
    return await result if inspect.isawaitable(result) else result
