"""Stage 5: several callbacks for one queue, chosen by the type of the key. A `KeyRouter` is itself a callback.

The type of a key is what its meta says under `type`, else what stands before its first `/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import reduce
from typing import Any, TypedDict, TypeVar, Unpack

from workqueue.attempt import AsyncCallback, Attempt, Callback, as_async, check_callback
from workqueue.backoff import Backoff
from workqueue.clock import Clock, SystemClock, from_us
from workqueue.errors import ExpiredError, InvalidOptionsError, NonRetriableError
from workqueue.outcomes import QueueKeys, RequeueAfter
from workqueue.raised import as_one
from workqueue.routing.errors import NoRouteError
from workqueue.routing.key_limits import NO_LIMITS, Limits, limits_of
from workqueue.routing.policies import retry_policy
from workqueue.routing.routes import Routes
from workqueue.safe_text import describe

__all__ = ["TYPE", "KeyRouter", "Middleware", "RouteArgs", "type_of"]

TYPE = "type"
"""The name in a key's meta that says its type."""

Middleware = Callable[[AsyncCallback], AsyncCallback]
"""Given what comes next, what is to be called in its place: a decorator of callbacks."""

_C = TypeVar("_C", bound=Callback)


class RouteArgs(TypedDict, total=False):
    """What a route may say about its keys; the names but `retry` are those of `Limits`."""

    retry: str | Backoff
    max_retry: int
    max_run_time: timedelta
    deadline: datetime


@dataclass(frozen=True, slots=True)
class _Route:
    own: AsyncCallback
    wrapped: AsyncCallback
    limits: Limits


def type_of(key: str, meta: Mapping[str, str]) -> str:
    """The type of a key: its meta `type`, else what stands before its first `/`, which may be all of it."""
    return meta.get(TYPE) or key.partition("/")[0]


class KeyRouter:
    """Calls the callback that is registered for a key's type.

    Args:
        clock: what deadlines are judged by; a test gives the one of its queue.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._routes: Routes[_Route] = Routes()
        self._middleware: list[Middleware] = []

    def route(self, name: str, *middleware: Middleware, **limits: Unpack[RouteArgs]) -> Callable[[_C], _C]:
        """Register the decorated callback for keys of type `name`.

        Where several routes fit a type, the one of exactly that name is taken, else the one with the longest prefix
        that ends at a `:`, `/` or `.`, else the one registered under ''.

        Args:
            name: a type, or the beginning of several.
            middleware: wrapped around this callback, within what `use` was given; the first is the outermost.
            limits: how often, how long and until when its keys are tried. `retry` is a policy or the name of one.

        Raises:
            DuplicateRouteError: `name` has a route.
            InvalidSettingError: there is no such policy, or the callback cannot be called with a key and its attempt.
            InvalidOptionsError: a limit is out of range.
        """
        given = _limits(limits)

        def register(callback: _C) -> _C:
            check_callback(callback, "key", "attempt")
            own = _around(middleware, as_async(callback))
            self._routes.add(name, _Route(own, _around(self._middleware, own), given))
            return callback

        return register

    def use(self, middleware: Middleware) -> Middleware:
        """Wrap `middleware` around every route, those registered before too; the first one used is the outermost."""
        self._middleware.append(middleware)
        self._routes.change(lambda route: replace(route, wrapped=_around(self._middleware, route.own)))
        return middleware

    def limits_of_key(self, key: str, meta: Mapping[str, str]) -> Limits:
        """What holds for the attempts of this key; never raises, since a dispatcher asks while it starts or settles."""
        route = self._routes.find(type_of(key, meta))
        try:
            return limits_of(route.limits if route else NO_LIMITS, meta)
        except InvalidOptionsError:  # its attempt fails with this, where somebody sees it
            return route.limits if route else NO_LIMITS

    async def __call__(self, key: str, attempt: Attempt) -> Any:
        """Call the callback for this key.

        Raises:
            NoRouteError: there is none; the key is tried again, since a deploy may bring it.
            ExpiredError: the key's deadline has passed.
            NonRetriableError: its attempts are used up, the last one by a crash, which stores judge by the dispatcher's
                own `max_retry`.
        """
        route = self._routes.find(name := type_of(key, attempt.meta))
        if route is None:
            raise NoRouteError(f"no route takes keys of type {name!r}; there are {', '.join(self._routes) or 'none'}")
        limits = limits_of(route.limits, attempt.meta)
        if limits.max_retry and attempt.attempts > limits.max_retry:
            raise NonRetriableError(f"the process that ran the last of {limits.max_retry} attempts died")
        if limits.deadline is None:
            return await route.wrapped(key, attempt)
        return await self._before(limits.deadline, route, key, attempt)

    async def _before(self, deadline: datetime, route: _Route, key: str, attempt: Attempt) -> Any:
        """Call the callback unless it is too late; what fails and is too late to be tried again has expired too."""
        self._check(deadline)
        try:
            return await route.wrapped(key, attempt)
        except Exception as raised:
            error = as_one(raised)
            if not isinstance(error, RequeueAfter | QueueKeys):
                self._check(deadline, error)
            raise

    def _check(self, deadline: datetime, error: BaseException | None = None) -> None:
        if from_us(self._clock.wall_us()) >= deadline:
            last = f"; the last attempt failed: {describe(error)}" if error else ""
            raise ExpiredError(f"the deadline of this key, {deadline.isoformat()}, has passed{last}") from error


def _limits(args: RouteArgs) -> Limits:
    retry = args.get("retry")
    policy = retry_policy(retry) if isinstance(retry, str) else retry
    return Limits(args.get("max_retry"), policy, args.get("max_run_time"), args.get("deadline"))


def _around(middleware: tuple[Middleware, ...] | list[Middleware], innermost: AsyncCallback) -> AsyncCallback:
    return reduce(lambda inner, outer: outer(inner), reversed(middleware), innermost)
