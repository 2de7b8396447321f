"""What may happen to a connection besides breaking: a server silent at the wrong moment, a refusal, a hasty end."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.redis_server import RedisServer, shared_server
from tests.fakes.tcp_proxy import TcpProxy
from tests.support.dispatching import settle_down
from tests.support.redis import opened
from workqueue import StoreUnavailableError
from workqueue.errors import QueueClosedError, StoreUnusableError


async def test_a_redis_that_falls_silent_after_the_login_fails_calls_in_time() -> None:
    def swallow(answer: bytes) -> bytes:
        return b"" if b"redis_version" in answer else answer

    with (
        TcpProxy(shared_server().port, rewrite=swallow) as proxy,
        pytest.raises(StoreUnavailableError, match="does not answer: not in time"),
    ):
        async with opened(f"redis://127.0.0.1:{proxy.port}?timeout=300ms"):
            pass


async def test_a_user_that_may_run_scripts_but_not_load_them_is_told() -> None:
    with RedisServer() as server:
        server.ask("ACL", "SETUSER", "shy", "on", ">secret", "allkeys", "allchannels", "+@all", "-script")

        with pytest.raises(StoreUnusableError, match="does not permit this user what a queue needs"):
            async with opened(server.url().replace("://", "://shy:secret@")):
                pass


async def test_closing_that_is_cancelled_still_leaves_no_call_hanging() -> None:
    with RedisServer() as server:
        async with opened(server.url()) as queue:
            server.freeze()
            hanging = asyncio.ensure_future(queue.queue("a"))
            await settle_down()
            closing = asyncio.ensure_future(queue.__aexit__())
            await asyncio.sleep(0)
            closing.cancel()

            with pytest.raises(QueueClosedError):
                await hanging
            await asyncio.wait((closing,))
            assert closing.cancelled()
