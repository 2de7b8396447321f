"""What a program gives at the doors of the library: of a wrong type, it is refused there, in words, before anything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatcher import (
    CloudEventErrors,
    Dispatcher,
    command_callback,
    handle,
    handler,
    http_callback,
    service_callback,
)
from workqueue import Configuration, InvalidOptionsError, Options, open_queue
from workqueue.access.security import ServerSecurity, check_listen
from workqueue.enqueuer import BackgroundEnqueuer
from workqueue.errors import InvalidSettingError
from workqueue.lease import LeaseTimes
from workqueue.optional import LeaseRequest
from workqueue.rpc.client import connect

WRONG: list[Any] = [None, 5, b"memory://", Path("wq.db"), ["memory://"], {"url": "memory://"}]

DOORS: dict[str, Callable[[Any], object]] = {
    "open_queue": open_queue,
    "the owner": lambda wrong: open_queue("redis://h", owner=wrong),
    "connect": connect,
    "service_callback": service_callback,
    "http_callback": http_callback,
    "command_callback": command_callback,
    "a host": lambda wrong: check_listen(wrong, 80, ServerSecurity()),
    "an enqueuer's queue": BackgroundEnqueuer,
    "the source of events": lambda wrong: CloudEventErrors("http://h/", wrong),
    "a dispatcher's queue": lambda wrong: Dispatcher(wrong, callback),
    "a handler's queue": lambda wrong: handler(wrong, callback=callback),
}
NUMBERS: dict[str, Callable[[Any], object]] = {
    "a port": lambda wrong: check_listen("127.0.0.1", wrong, ServerSecurity()),
    "concurrency": lambda wrong: Configuration(concurrency=wrong),
    "a rate": lambda wrong: Configuration(starts_per_second=wrong),
    "a limit": lambda wrong: LeaseRequest(wrong, 5),
    "a lease's concurrency": lambda wrong: LeaseRequest(5, wrong),
    "max_retry": lambda wrong: LeaseRequest(5, 5, wrong),
    "a duration": lambda wrong: LeaseTimes(wrong, timedelta(seconds=5)),
    "meta": lambda wrong: Options(meta=wrong),
}


async def callback(key: str, attempt: object) -> None:
    """What a dispatcher calls."""


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__)
def test_a_door_refuses_what_is_no_text_or_no_queue(door: str, wrong: Any) -> None:
    with pytest.raises((InvalidOptionsError, InvalidSettingError)) as refusal:
        DOORS[door](wrong)
    assert type(wrong).__name__ in str(refusal.value)


@pytest.mark.parametrize("door", NUMBERS)
@pytest.mark.parametrize("wrong", ["5", "x", True, [5]], ids=repr)
def test_a_number_as_text_is_refused(door: str, wrong: Any) -> None:
    with pytest.raises(InvalidOptionsError, match=f"not a {type(wrong).__name__}|not {wrong!r}".replace("[", r"\[")):
        NUMBERS[door](wrong)


@pytest.mark.parametrize("clock", [5, "now", timedelta(0)])
def test_a_clock_that_is_none_is_refused(clock: Any) -> None:
    with pytest.raises(InvalidOptionsError, match="clock takes a Clock"):
        open_queue("memory://", clock=clock)


async def test_a_round_refuses_what_sends_no_events_and_settings_that_are_none() -> None:
    async with open_queue("memory://") as queue:
        await queue.queue("a")
        with pytest.raises(InvalidSettingError, match=r"CloudEventErrors\(url, source\), not a str"):
            await handle(queue, callback=callback, errors="http://broker/")  # type: ignore[arg-type]
        with pytest.raises(InvalidOptionsError, match="settings takes DispatcherSettings"):
            Dispatcher(queue, callback, {"concurrency": 5})  # type: ignore[arg-type]
        with pytest.raises(InvalidOptionsError, match="enumerate takes a whole number of keys, not a str"):
            await queue.enumerate("5")  # type: ignore[arg-type]

        assert (await queue.counts()).queued == 1
