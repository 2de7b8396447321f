"""What cannot be a callback, a queue or an outcome is refused with a line that says what it takes."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import dispatcher
from dispatcher import Controller, Dispatcher, DispatcherSettings
from tests.support.dispatching import Recorder, memory, nothing, states
from workqueue import NonRetriableError, QueueKey, QueueKeys, RequeueAfter
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import InvalidOptionsError, InvalidSettingError
from workqueue.routing import KeyRouter
from workqueue.rpc.reconciler import serve
from workqueue.sources.kubernetes import Watch

MINUTE = timedelta(minutes=1)


async def of_one(key: str) -> None: ...


async def of_names(*, key: str, attempt: object) -> None: ...


async def yields(key: str, attempt: object) -> AsyncIterator[None]:
    yield


def yields_too(key: str, attempt: object) -> Iterator[None]:
    yield


class Reconciler:
    async def __call__(self, key: str, attempt: object) -> None: ...


class Gone(NonRetriableError):
    """An error whose author forgot to call the __init__ that it has overridden."""

    def __init__(self, number: int) -> None:
        self.number = number


WRONG = {
    "nothing": (None, "NoneType"),
    "a name": ("mine:reconcile", "str"),
    "one argument": (of_one, "of_one cannot be: too many"),
    "named arguments only": (of_names, "of_names cannot be"),
    "a class": (Reconciler, "Reconciler is a class"),
    "an async generator": (yields, "yields has a yield"),
    "a generator": (yields_too, "yields_too has a yield"),
}
MAKERS: dict[str, Callable[[Any], object]] = {
    "Dispatcher": lambda callback: Dispatcher(memory(), callback),
    "handle_async": lambda callback: dispatcher.handle_async(memory(), callback=callback),
    "handler": lambda callback: dispatcher.handler(memory(), callback=callback),
    "serve": lambda callback: serve(callback, port=0),
    "KeyRouter.route": lambda callback: KeyRouter().route("x")(callback),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("wrong", WRONG)
async def test_what_cannot_be_called_as_a_callback_is_refused_at_once(wrong: str, maker: str) -> None:
    callback, says = WRONG[wrong]

    with pytest.raises(InvalidSettingError, match="callback is called as") as refused:
        MAKERS[maker](callback)

    assert says in str(refused.value)


async def test_a_coroutine_in_the_place_of_its_function_is_refused() -> None:
    coroutine: Any = Reconciler()("a", None)
    with pytest.raises(InvalidSettingError, match="without calling it"):
        Dispatcher(memory(), coroutine)
    await coroutine


def test_a_controllers_reconcile_takes_three_arguments() -> None:
    with pytest.raises(InvalidSettingError, match=r"\(cluster, key, attempt\)"):
        Controller([Watch("v1/ConfigMap")], nothing)  # type: ignore[arg-type]


TAKEN = [Reconciler(), Reconciler().__call__, functools.partial(lambda cluster, key, attempt: None, "cluster"), min]


@pytest.mark.parametrize("callback", TAKEN, ids=["an object", "a method", "a partial", "a builtin"])
def test_what_may_be_called_as_a_callback_is_taken(callback: Any) -> None:
    assert Dispatcher(MemoryQueue(), callback).setup.settings == DispatcherSettings()


def test_a_url_in_the_place_of_a_queue_is_refused_and_not_shown() -> None:
    url: Any = "redis://me:hunter2@localhost/0"

    with pytest.raises(InvalidSettingError, match="not a str") as refused:
        Dispatcher(url, nothing)

    assert "hunter2" not in str(refused.value)


def test_a_backoff_that_is_no_function_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="backoff is a function"):
        DispatcherSettings(backoff=MINUTE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: RequeueAfter(5),  # type: ignore[arg-type]
        lambda: RequeueAfter(MINUTE, jitter=0.5),  # type: ignore[arg-type]
        lambda: QueueKey("a", delay=5),  # type: ignore[arg-type]
    ],
    ids=["delay", "jitter", "delay of a key"],
)
def test_a_number_in_the_place_of_a_duration_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidOptionsError, match=r"is a timedelta, such as timedelta\(seconds=5\), not"):
        make()


def test_keys_to_queue_are_no_strings() -> None:
    with pytest.raises(InvalidOptionsError, match="QueueKey"):
        QueueKeys("a")  # type: ignore[arg-type]


async def test_a_run_is_extended_by_a_duration_and_not_by_a_number() -> None:
    queue, errors = memory(), Recorder()

    async def reconcile(key: str, attempt: dispatcher.Attempt) -> None:
        attempt.extend(5)  # type: ignore[arg-type]

    await queue.queue("a")
    await dispatcher.handle(queue, callback=reconcile, errors=errors)

    assert "InvalidOptionsError: a duration is a timedelta" in errors.events[0].failure.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NonRetriableError(ValueError("no")), "ValueError: no"),
        (NonRetriableError(), "This key cannot succeed, however often it is tried."),
        (Gone(7), "Gone: 7"),
    ],
    ids=["an error", "nothing", "a subclass"],
)
async def test_a_key_is_dropped_whatever_is_given_as_the_reason(error: NonRetriableError, reason: str) -> None:
    queue, errors = memory(), Recorder()

    async def reconcile(key: str, attempt: object) -> None:
        raise error

    await queue.queue("a")
    await dispatcher.handle(queue, callback=reconcile, errors=errors)

    assert await states(queue, "a") == {"a": "UNKNOWN"}
    assert errors.events[0].failure.reason == reason
