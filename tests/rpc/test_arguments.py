"""What every door of gRPC says to an argument of another type: a typed error with the argument's name, at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from workqueue import InvalidOptionsError
from workqueue.access.security import ClientSecurity, ServerSecurity, ServerTLS
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import InvalidKeyError, InvalidSettingError, WorkQueueError
from workqueue.rpc.client import Retries, connect
from workqueue.rpc.drain import DrainTimes
from workqueue.rpc.receiver import receive
from workqueue.rpc.reconciler import serve
from workqueue.rpc.sharding import route

SECOND = timedelta(seconds=1)
UNTYPED: Any = None


async def callback(key: str, attempt: object) -> None: ...


QUEUE = MemoryQueue()
ADDRESS = "grpc://127.0.0.1:1"

DOORS: dict[str, tuple[Callable[[], object], str]] = {
    "serve, a port": (lambda: serve(callback, port=UNTYPED), "port takes"),
    "serve, security": (lambda: serve(callback, security=0), "security takes"),  # type: ignore[arg-type]
    "serve, times": (lambda: serve(callback, times=SECOND), "times takes"),  # type: ignore[arg-type]
    "receive, a queue": (lambda: receive(UNTYPED), "not a NoneType"),
    "receive, a port": (lambda: receive(QUEUE, port=UNTYPED), "port takes"),
    "receive, security": (lambda: receive(QUEUE, security="tls"), "security takes"),  # type: ignore[arg-type]
    "connect, an empty address": (lambda: connect(""), "'' is no address"),
    "connect, an address": (lambda: connect(UNTYPED), "an address takes"),
    "connect, security": (lambda: connect(ADDRESS, security="secret"), "security takes"),  # type: ignore[arg-type]
    "connect, retries": (lambda: connect(ADDRESS, retries=0), "retries takes"),  # type: ignore[arg-type]
    "TLS of a server": (lambda: ServerSecurity(tls="a.pem"), "tls takes"),  # type: ignore[arg-type]
    "tokens of a server": (lambda: ServerSecurity(tokens="secret"), "tokens takes"),  # type: ignore[arg-type]
    "a certificate": (lambda: ServerTLS("a.pem", Path("b")), "certificate takes"),  # type: ignore[arg-type]
    "an authority": (lambda: ClientSecurity(ca="ca.pem"), "ca takes"),  # type: ignore[arg-type]
    "a token": (lambda: ClientSecurity(token="secret"), "token takes"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("call", "says"), DOORS.values(), ids=DOORS)
def test_an_argument_of_another_type_is_refused_at_the_door(call: Callable[[], object], says: str) -> None:
    with pytest.raises((InvalidOptionsError, InvalidSettingError), match=says) as refused:
        call()

    assert "secret" not in str(refused.value)


TIMES: dict[str, Callable[[], object]] = {
    "a number": lambda: Retries(patience=5),  # type: ignore[arg-type]
    "less than none": lambda: Retries(patience=-SECOND),
    "no time for an attempt": lambda: Retries(attempt=timedelta(0)),
    "no pause": lambda: Retries(pause=timedelta(0)),
    "a number for a drain": lambda: DrainTimes(patience=5),  # type: ignore[arg-type]
    "less than none for a drain": lambda: DrainTimes(delay=-SECOND),
}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_a_time_that_nobody_can_wait_is_refused(times: Callable[[], object]) -> None:
    with pytest.raises(InvalidSettingError, match="is a timedelta of"):
        times()


@pytest.mark.parametrize("shards", [None, 5, "grpc://127.0.0.1:1", [5]], ids=repr)
async def test_shards_that_are_no_addresses_are_refused(shards: Any) -> None:
    with pytest.raises(WorkQueueError, match=r"route takes|an address takes"):
        async with route(shards, port=0):
            pass


@pytest.mark.parametrize("key", [None, 5, b"k", "\ud800", "caf\udce9"], ids=ascii)
async def test_a_key_that_no_request_can_carry_is_refused_by_a_look(key: Any) -> None:
    async with connect("grpc://127.0.0.1:1") as client:
        with pytest.raises(InvalidKeyError):
            await client.get(key)
