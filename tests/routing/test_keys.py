"""A router of keys, as a dispatcher calls it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

import dispatcher
from dispatcher import Attempt
from tests.support.dispatching import Recorder, clock_of, dead_letters, memory, state, states
from workqueue import Options, RequeueAfter
from workqueue.attempt import AsyncCallback
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.clock import from_us
from workqueue.errors import InvalidOptionsError, InvalidSettingError
from workqueue.routing import KeyRouter, Limits, with_limits
from workqueue.routing.errors import DuplicateRouteError
from workqueue.routing.keys import type_of

MINUTE = timedelta(minutes=1)


def noting(router: KeyRouter, *names: str) -> list[tuple[str, str]]:
    """Routes under these names that note which of them was called for which key."""
    called: list[tuple[str, str]] = []
    for name in names:

        async def callback(key: str, attempt: Attempt, name: str = name) -> None:
            called.append((name, key))

        router.route(name)(callback)
    return called


@pytest.mark.parametrize(
    ("key", "meta", "type_"),
    [
        ("customer/42", {}, "customer"),
        ("customer/42/address", {}, "customer"),
        ("customer", {}, "customer"),
        ("/42", {}, ""),
        ("42", {"type": "email:new"}, "email:new"),
        ("customer/42", {"type": "email"}, "email"),
        ("customer/42", {"type": ""}, "customer"),
    ],
)
def test_the_type_of_a_key_is_in_its_meta_or_before_its_first_slash(key: str, meta: dict[str, str], type_: str) -> None:
    assert type_of(key, meta) == type_


async def test_each_key_goes_to_the_callback_for_its_type() -> None:
    queue, router = memory(), KeyRouter()
    called = noting(router, "customer", "email:", "")
    await queue.queue("customer/42")
    await queue.queue("17", Options(meta={"type": "email:new"}))
    await queue.queue("other")

    await dispatcher.handle(queue, callback=router)

    assert sorted(called) == [("", "other"), ("customer", "customer/42"), ("email:", "17")]
    assert await states(queue, "customer/42", "17", "other") == dict.fromkeys(["customer/42", "17", "other"], "UNKNOWN")


async def test_a_key_without_a_route_is_tried_again_and_the_event_says_which_routes_there_are() -> None:
    queue, router, events = memory(), KeyRouter(), Recorder()
    noting(router, "customer", "email:")
    await queue.queue("invoice/1")

    await dispatcher.handle(queue, callback=router, errors=events)

    assert (await state(queue, "invoice/1")).attempts == 1
    [event] = events.events
    assert event.failure.action == "requeued"
    assert "'invoice'" in event.failure.error
    assert "customer, email:" in event.failure.error


async def test_what_a_callback_returns_or_raises_decides_as_without_a_router() -> None:
    queue, router = memory(), KeyRouter()
    router.route("later")(returning(lambda: RequeueAfter(MINUTE)))

    @router.route("broken")
    async def broken(key: str, attempt: Attempt) -> None:
        raise ValueError("no")

    await queue.queue("later")
    await queue.queue("broken")
    await dispatcher.handle(queue, callback=router, max_retry=1)

    assert await states(queue, "later", "broken") == {"later": "QUEUED", "broken": "DEAD_LETTER"}
    assert await dead_letters(queue) == {"broken": "ValueError: no"}


def returning(outcome: Callable[[], RequeueAfter]) -> Callable[[str, Attempt], RequeueAfter]:
    return lambda key, attempt: outcome()


async def test_a_plain_function_runs_in_a_thread() -> None:
    queue, router, threads = memory(), KeyRouter(), []

    @router.route("")
    def plain(key: str, attempt: Attempt) -> None:
        threads.append(threading.current_thread())

    await queue.queue("a")
    await dispatcher.handle(queue, callback=router)

    assert threads
    assert threads[0] is not threading.main_thread()


async def test_middleware_wraps_global_first_then_the_routes_own_and_the_first_is_outermost() -> None:
    router, steps = KeyRouter(), []

    def noting_middleware(name: str) -> Callable[[AsyncCallback], AsyncCallback]:
        def wrap(following: AsyncCallback) -> AsyncCallback:
            async def wrapped(key: str, attempt: Attempt) -> object:
                steps.append(f"{name} in")
                result = await following(key, attempt)
                steps.append(f"{name} out")
                return result

            return wrapped

        return wrap

    router.use(noting_middleware("first"))

    @router.route("", noting_middleware("third"), noting_middleware("fourth"))
    async def callback(key: str, attempt: Attempt) -> None:
        steps.append("callback")

    router.use(noting_middleware("second"))  # routes that are there already have it too
    queue = await queued("a")
    await dispatcher.handle(queue, callback=router)

    names = ["first", "second", "third", "fourth"]
    assert steps == [f"{n} in" for n in names] + ["callback"] + [f"{n} out" for n in reversed(names)]


async def test_middleware_may_answer_in_place_of_the_callback() -> None:
    router = KeyRouter()
    called = noting(router, "")

    @router.use
    def closed(following: AsyncCallback) -> AsyncCallback:
        async def later(key: str, attempt: Attempt) -> RequeueAfter:
            return RequeueAfter(MINUTE)

        return later

    queue = await queued("a")
    await dispatcher.handle(queue, callback=router)

    assert called == []
    assert (await state(queue, "a")).not_before is not None


async def queued(*keys: str, options: Options = Options()) -> MemoryQueue:
    queue = memory()
    for key in keys:
        await queue.queue(key, options)
    return queue


@pytest.mark.parametrize("name", ["", "email", "email:"])
def test_a_route_that_is_registered_twice_is_refused(name: str) -> None:
    router = KeyRouter()
    noting(router, "", "email", "email:")

    with pytest.raises(DuplicateRouteError, match=f"the route '{name}' is registered already"):
        noting(router, name)


def test_a_route_with_an_unknown_policy_or_a_limit_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="'linear-2m'"):
        KeyRouter().route("a", retry="linear-2m")
    with pytest.raises(InvalidOptionsError, match="max_retry"):
        KeyRouter().route("a", max_retry=-1)


def test_a_router_says_the_limits_of_a_key_and_those_in_its_meta_win() -> None:
    router = KeyRouter()
    router.route("email", max_retry=5, max_run_time=MINUTE)(returning(lambda: RequeueAfter(MINUTE)))

    assert router.limits_of_key("email/1", {}) == Limits(max_retry=5, max_run_time=MINUTE)
    assert router.limits_of_key("email/1", {"max-retry": "7"}).max_retry == 7
    assert router.limits_of_key("email/1", {"max-retry": "seven"}).max_retry == 5
    assert router.limits_of_key("other/1", {}) == Limits()


async def test_a_limit_that_cannot_be_read_fails_the_attempt_and_says_so() -> None:
    router, events = KeyRouter(), Recorder()
    called = noting(router, "")
    queue = await queued("a", options=Options(meta={"deadline": "tomorrow"}))

    await dispatcher.handle(queue, callback=router, errors=events)

    assert called == []
    assert "the key's deadline is 'tomorrow'" in events.events[0].failure.error


async def test_what_a_callback_asks_for_in_a_group_is_done_past_its_deadline_too() -> None:
    queue = memory()
    clock = clock_of(queue)
    router = KeyRouter(clock=clock)

    @router.route("")
    async def reconcile(key: str, attempt: Attempt) -> None:
        clock.advance(MINUTE)
        raise ExceptionGroup("a TaskGroup", [RequeueAfter(MINUTE)])

    await queue.queue("a", with_limits(Options(), Limits(deadline=from_us(clock.wall_us()) + MINUTE)))
    await dispatcher.handle(queue, callback=router)

    assert (await queue.get("a")).status.name == "QUEUED"


async def test_a_key_is_called_until_its_deadline_and_not_past_it() -> None:
    queue = memory()
    clock = clock_of(queue)
    router = KeyRouter(clock=clock)
    called = noting(router, "")
    limits = Limits(deadline=from_us(clock.wall_us()) + MINUTE)

    for key, passed in (("early", timedelta(seconds=59)), ("late", timedelta(seconds=1))):
        clock.advance(passed)
        await queue.queue(key, with_limits(Options(), limits))
        await dispatcher.handle(queue, callback=router)

    assert called == [("", "early")]
