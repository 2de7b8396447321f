"""A router behind HTTP: what its callers are answered."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from workqueue import InfrastructureError, NonRetriableError, RequeueAfter
from workqueue.routing import Hooks, Router, Source, fields, has_fields, inspect_cloud_event, webhook
from workqueue.routing.messages.hooks import NO_HOOKS
from workqueue.web.server import http_server

RAISED = {
    "later": RequeueAfter(timedelta(seconds=59.5)),
    "down": InfrastructureError("the database is down"),
    "hopeless": NonRetriableError("no such user"),
    "broken": ValueError("a password, perhaps"),
}


@dataclass
class User:
    id: int


@asynccontextmanager
async def serving_router(hooks: Hooks = NO_HOOKS, limit: int = 1000) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a server with a func, a proc, and handlers that raise."""
    router = Router(Source("envelope", has_fields("type"), fields("type", "payload")), hooks=hooks)
    router.group(inspect_cloud_event, Source("events", has_fields("type"), fields("type", "data")))

    @router.func("lookup")
    async def lookup(user: User) -> User:
        return user

    @router.proc("touch")
    async def touch(payload: object) -> None: ...

    for key, error in RAISED.items():
        router.proc(key)(raising(error))
    app = webhook(router, max_body_bytes=limit)
    async with http_server(app, "127.0.0.1", 0) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session


def raising(error: Exception) -> Any:
    async def handler(payload: object) -> None:
        raise error

    return handler


def raw(type_: str, payload: object = None) -> bytes:
    return json.dumps({"type": type_, "payload": payload}).encode()


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (raw("lookup", {"id": 1}), 200, '{"id":1}'),
        (raw("touch"), 200, "{}"),
        (b"no JSON", 400, "no source takes this message"),
        (b'{"type": 7}', 400, "cannot parse"),
        (raw("other"), 404, "no handler takes the key 'other'"),
        (raw("lookup", {"id": "one"}), 422, "$.id"),
        (raw("hopeless"), 422, "NonRetriableError"),
        (raw("down"), 503, "InfrastructureError"),
        (raw("broken"), 500, "the handler failed: ValueError"),
    ],
    ids=["func", "proc", "no source", "no key", "no handler", "decode", "hopeless", "down", "broken"],
)
async def test_a_caller_is_answered_with_what_became_of_its_message(body: bytes, status: int, text: str) -> None:
    async with serving_router() as session, session.post("/", data=body) as response:
        answer = await response.text()

    assert (response.status, text in answer) == (status, True), answer
    assert "password" not in answer


async def test_what_a_handler_raised_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_router() as session, session.post("/", data=raw("broken")):
        assert "a password, perhaps" in caplog.text
        assert caplog.records[-1].levelno == logging.ERROR


async def test_a_handler_that_wants_it_again_says_when() -> None:
    async with serving_router() as session, session.post("/", data=raw("later")) as response:
        assert (response.status, response.headers["retry-after"]) == (503, "60")


async def test_a_message_that_a_hook_skips_counts_as_handled() -> None:
    hooks = Hooks(on_no_handler=lambda context, error: None)

    async with serving_router(hooks) as session, session.post("/", data=raw("other")) as response:
        assert (response.status, await response.text()) == (200, "{}")


async def test_an_event_in_binary_mode_is_read_from_the_headers() -> None:
    headers = {"CE-SpecVersion": "1.0", "CE-ID": "1", "CE-Source": "/s", "CE-Type": "lookup"}

    async with serving_router() as session, session.post("/", data=b'{"id": 7}', headers=headers) as response:
        assert await response.json() == {"id": 7}


@pytest.mark.parametrize(("size", "status"), [(1000, 400), (1001, 413)])
async def test_a_body_may_have_the_limit_and_not_one_byte_more(size: int, status: int) -> None:
    async with serving_router(limit=1000) as session, session.post("/", data=b" " * size) as response:
        assert response.status == status


async def test_a_body_that_does_not_say_its_length_is_cut_off_at_the_limit() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 4096

    async with serving_router() as session:
        try:
            async with session.post("/", data=endless()) as response:
                status = response.status
        except aiohttp.ClientConnectionError:  # the server hung up while we were still sending
            status = 413
    assert status == 413


async def test_only_post_is_taken() -> None:
    async with serving_router() as session, session.get("/") as response:
        assert response.status == 405
