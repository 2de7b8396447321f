"""Rounds on request, over a real HTTP server: admission, failures, callers that hang up, probes and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

import dispatcher
from dispatcher import Attempt, Trigger
from dispatcher.settings import DispatcherSettings
from dispatcher.setup import Setup
from dispatcher.trigger import MAX_BODY_BYTES, MAX_HEADER_BYTES
from tests.dispatcher.test_loop import Gate
from tests.support.dispatching import (
    Ledger,
    clock_of,
    flaky,
    memory,
    nothing,
    opened,
    pass_time,
    states,
    until,
)
from workqueue.access.tokens import StaticTokens
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import StoreUnusableError
from workqueue.lease import LeaseRenewer
from workqueue.optional import Leased, LeaseRequest
from workqueue.web.bearer import BearerTokens
from workqueue.web.server import http_server

SECOND = timedelta(seconds=1)


@asynccontextmanager
async def asking(app: ASGIApp) -> AsyncIterator[ClientSession]:
    """A client of `app` on a real server."""
    async with (
        http_server(app, "127.0.0.1", 0) as port,
        ClientSession(f"http://127.0.0.1:{port}", timeout=ClientTimeout(30)) as session,
    ):
        yield session


async def asked(session: ClientSession, path: str = "/", method: str = "POST") -> tuple[int, str]:
    async with session.request(method, path) as response:
        return response.status, (await response.text()).strip()


async def test_a_look_whether_the_page_is_there_is_no_trigger() -> None:
    queue, ledger = memory(), Ledger()
    await queue.queue("a")

    async with asking(dispatcher.handler(queue, callback=ledger)) as session:
        status, _ = await asked(session, method="HEAD")

    assert (status, ledger.called) == (405, {})


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_trigger_runs_a_round_and_answers_when_it_has_ended(method: str) -> None:
    queue, ledger = memory(), Ledger(steps=5)
    await queue.queue("a")

    async with asking(dispatcher.handler(queue, callback=ledger)) as session:
        answer = await asked(session, method=method)

    assert answer == (200, "ok")
    assert ledger.ended == {"a": 1}


async def test_triggers_beyond_one_in_a_period_are_shed() -> None:
    queue, ledger = memory(), Ledger()

    async with asking(dispatcher.handler(queue, callback=ledger)) as session:
        first = await asked(session)
        await queue.queue("a")
        second, shed = await asked(session)
        clock_of(queue).advance(SECOND)
        third = await asked(session)

    assert (first, second, third) == ((200, "ok"), 200, (200, "ok"))
    assert shed.startswith("shed")
    assert ledger.called == {"a": 1}


async def test_rounds_may_overlap() -> None:
    queue, gate = memory(), Gate()
    await queue.queue("a")

    async with asking(dispatcher.handler(queue, callback=gate, trigger_period=timedelta(0))) as session:
        slow = asyncio.ensure_future(asked(session))
        await until(lambda: "a" in gate.inside)
        quick = await asked(session)
        gate.let_go("a")
        answers = (quick, await slow)

    assert answers == ((200, "ok"), (200, "ok"))


async def test_a_round_whose_store_is_down_answers_503_with_the_errors_text() -> None:
    queue = flaky()
    await queue.queue("a")
    queue.fail("complete", times=1000)

    async with asking(dispatcher.handler(queue, callback=nothing)) as session:
        answer = asyncio.ensure_future(asked(session))
        await until(lambda: queue.asked("complete") > 0)
        await pass_time(queue, timedelta(seconds=20))

        assert await answer == (503, "StoreUnavailableError: complete failed on purpose")


class UnusableQueue(MemoryQueue):
    """A store that an operator must mend."""

    async def lease(self, request: LeaseRequest) -> Leased:
        raise StoreUnusableError("no such table")


async def test_a_round_that_fails_for_good_answers_500_with_the_errors_text() -> None:
    async with asking(dispatcher.handler(opened(UnusableQueue()), callback=nothing)) as session:
        answer = await asked(session)

    assert answer == (500, "StoreUnusableError: no such table")


async def test_a_trigger_is_not_ready_while_its_store_is_down_and_needs_no_round_to_see_that_it_is_back() -> None:
    queue = flaky()
    queue.fail("lease")
    queue.fail("counts")

    async with asking(dispatcher.handler(queue, callback=nothing)) as session:
        failed, _ = await asked(session)
        down = await asked(session, "/readyz", "GET")
        back = await asked(session, "/readyz", "GET")

    assert (failed, back) == (503, (200, "ok"))
    assert down == (503, "the store does not work (StoreUnavailableError); the log says why")


async def test_a_keyboard_interrupt_in_a_callback_fails_the_round_and_not_the_server() -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise KeyboardInterrupt

    await queue.queue("a")
    async with asking(dispatcher.handler(queue, callback=reconcile)) as session:
        status, _ = await asked(session)
        alive = await asked(session, "/healthz", "GET")

    assert (status, alive) == (500, (200, "ok"))


async def test_a_process_whose_leases_are_not_renewed_is_to_be_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseRenewer, "tick", lambda renewer, now_us: None)  # its thread is stuck
    queue, gate = memory(), Gate()
    await queue.queue("a")

    async with asking(dispatcher.handler(queue, callback=gate)) as session:
        await asked(session, "/?wait=false")
        await until(lambda: "a" in gate.inside)
        alive = await asked(session, "/healthz", "GET")
        clock_of(queue).advance(16 * SECOND)
        stalled = await asked(session, "/healthz", "GET")
        gate.let_go("a")
        await until(lambda: not gate.inside)

    assert (alive, stalled) == ((200, "ok"), (503, "leases are not being renewed"))


@pytest.mark.parametrize("wait", ["false", "False", "0"])
async def test_a_caller_that_need_not_wait_is_answered_at_once(wait: str) -> None:
    queue, gate = memory(), Gate()
    await queue.queue("a")

    async with asking(dispatcher.handler(queue, callback=gate)) as session:
        answering = asyncio.create_task(asked(session, f"/?wait={wait}"))
        await until(lambda: "a" in gate.inside)
        answered, _ = await asyncio.wait((answering,), timeout=5)
        gate.let_go("a")
        await until(lambda: not gate.inside)
        answer = await answering

    assert answered, "it has waited"
    assert answer == (202, "started")
    assert await states(queue, "a") == {"a": "UNKNOWN"}


async def test_a_caller_that_hangs_up_does_not_cancel_its_round() -> None:
    queue, gate = memory(), Gate()
    await queue.queue("a")

    async with asking(dispatcher.handler(queue, callback=gate)) as session:
        caller = asyncio.ensure_future(asked(session))
        await until(lambda: "a" in gate.inside)
        caller.cancel()
        await asyncio.wait((caller,))
        gate.let_go("a")
        await until(lambda: not gate.inside)

    assert await states(queue, "a") == {"a": "UNKNOWN"}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [({}, b"x" * (MAX_BODY_BYTES + 1), 413), ({"x": "x" * MAX_HEADER_BYTES}, b"", 431), ({}, b"{}", 200)],
    ids=["body", "headers", "small"],
)
async def test_oversized_requests_are_refused(headers: dict[str, str], body: bytes, status: int) -> None:
    app = dispatcher.handler(memory(), callback=nothing)

    async with asking(app) as session, session.post("/", data=body, headers=headers) as response:
        assert response.status == status


async def test_the_trigger_mounts_in_another_app() -> None:
    queue, ledger = memory(), Ledger()
    await queue.queue("a")
    app = Starlette(routes=[Mount("/dispatch", dispatcher.handler(queue, callback=ledger))])

    async with asking(app) as session:
        answer = await asked(session, "/dispatch/")

    assert (answer, ledger.ended) == ((200, "ok"), {"a": 1})


async def test_a_token_can_be_asked_for_but_not_by_probes() -> None:
    app: Any = BearerTokens(dispatcher.handler(memory(), callback=nothing), StaticTokens(["secret"]))

    async with asking(app) as session:
        refused, probe = await asked(session), await asked(session, "/healthz", "GET")
        async with session.post("/", headers={"authorization": "Bearer secret"}) as response:
            accepted = response.status

    assert (refused[0], probe[0], accepted) == (401, 200, 200)


async def test_metrics_show_the_queue_and_what_was_done_with_its_keys() -> None:
    queue = memory()
    await queue.queue("a")
    await queue.queue("b")

    async with asking(dispatcher.handler(queue, callback=nothing, batch_size=1)) as session:
        await asked(session)
        await asked(session)
        text = ""
        while "workqueue_queued_keys{" not in text:  # counted in the background, at the first scrape
            _, text = await asked(session, "/metrics", "GET")

    assert 'workqueue_queued_keys{queue_name="default",revision_name="unknown",service_name="unknown"} 1.0' in text
    assert 'result="shed"' in text
    assert 'outcome="completed"' in text


async def test_a_draining_trigger_admits_nothing_and_ends_its_rounds() -> None:
    queue, gate = memory(), Gate()
    await queue.queue("a")
    settings = DispatcherSettings(drain_timeout=20 * SECOND)
    trigger = Trigger(Setup.of(queue, gate, settings))

    async with asking(trigger.app()) as session:
        caller = asyncio.ensure_future(asked(session))
        await until(lambda: "a" in gate.inside)
        drain = asyncio.ensure_future(trigger.drain())
        await pass_time(queue, 21 * SECOND)
        await drain
        refused, ready = await asked(session), await asked(session, "/readyz", "GET")
        await caller

    assert (refused, ready) == ((503, "draining"), (503, "draining"))
    assert (await queue.get("a")).attempts == 0
