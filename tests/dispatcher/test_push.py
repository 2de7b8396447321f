"""Notes that Pub/Sub pushes about a bucket, over a real HTTP server: which are worth a round; none is forgotten."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import Any, cast

import pytest
from aiohttp import ClientSession
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import dispatcher
from dispatcher import Trigger
from dispatcher.settings import DispatcherSettings
from dispatcher.setup import Setup
from tests.dispatcher.test_loop import Gate
from tests.dispatcher.test_trigger import asking
from tests.support.dispatching import Ledger, clock_of, flaky, memory, nothing, pass_time, settle_down, until
from tests.support.oidc import Issuer
from workqueue.access.oidc import OIDCTokens
from workqueue.sources.pubsub import MAX_NOTE_BYTES, read_note
from workqueue.web.bearer import BearerTokens

SECOND = timedelta(seconds=1)
NUMBERS = itertools.count(1)


def note(name: str = "queued/a", event: str = "OBJECT_FINALIZE", number: str = "") -> dict[str, Any]:
    """A push request as Pub/Sub sends it."""
    attributes = {"eventType": event, "objectId": name, "bucketId": "wq", "payloadFormat": "NONE"}
    message = {
        "attributes": attributes,
        "messageId": number or str(next(NUMBERS)),
        "publishTime": "2026-11-22T12:00:00Z",
    }
    return {"message": message, "subscription": "projects/p/subscriptions/s"}


async def pushed(session: ClientSession, body: dict[str, Any], path: str = "/push") -> tuple[int, str]:
    async with session.post(path, json=body) as response:
        return response.status, (await response.text()).strip().partition(":")[0]


async def test_a_note_about_a_queued_key_is_a_round() -> None:
    queue, ledger = memory(), Ledger()
    await queue.queue("a")

    async with asking(dispatcher.handler(queue, callback=ledger)) as session:
        answer = await pushed(session, note())

    assert (answer, ledger.ended) == ((200, "ok"), {"a": 1})


async def test_a_note_that_is_no_news_is_acknowledged_without_a_round() -> None:
    queue, ledger = memory(), Ledger()
    await queue.queue("a")

    async with asking(dispatcher.handler(queue, callback=ledger)) as session:
        answer = await pushed(session, note("in-progress/a"))

    assert (answer, ledger.called) == ((200, "shed"), {})


async def test_a_note_that_is_delivered_again_is_acknowledged_without_a_round() -> None:
    queue, ledger = memory(), Ledger()

    async with asking(dispatcher.handler(queue, callback=ledger, trigger_period=timedelta(0))) as session:
        first = await pushed(session, note(number="7"))
        await queue.queue("a")
        again = await pushed(session, note(number="7"))

    assert (first, again, ledger.called) == ((200, "ok"), (200, "shed"), {})


async def test_a_note_with_a_number_of_any_length_is_remembered_by_a_few_bytes() -> None:
    queue, ledger = memory(), Ledger()
    trigger = Trigger(Setup.of(queue, ledger, DispatcherSettings(trigger_period=timedelta(0))))

    async with asking(trigger.app()) as session:
        first = await pushed(session, note(number="7\U0001f600" * 5_000))
        await queue.queue("a")
        again = await pushed(session, note(number="7\U0001f600" * 5_000))
        other = await pushed(session, note(number="7\U0001f600" * 5_001))

    assert (first, again, other) == ((200, "ok"), (200, "shed"), (200, "ok"))
    assert [len(each) for each in trigger._push._seen] == [16, 16]


async def test_notes_that_come_together_share_a_round() -> None:
    """The first has its round at once; the others one more, after the period, that sees all of their keys."""
    queue, ledger = memory(), Ledger()

    async with asking(dispatcher.handler(queue, callback=ledger)) as session:
        assert await pushed(session, note()) == (200, "ok")
        await queue.queue("a")
        waiting = asyncio.ensure_future(pushed(session, note()))
        await settle_down()
        await queue.queue("b")
        shed = await pushed(session, note())
        clock_of(queue).advance(SECOND)
        assert await waiting == (200, "ok")

    assert (shed, ledger.called) == ((200, "shed"), {"a": 1, "b": 1})


async def test_a_note_whose_round_failed_is_delivered_again_and_has_another() -> None:
    queue = flaky()
    await queue.queue("a")
    queue.fail("complete", times=1000)

    async with asking(dispatcher.handler(queue, callback=nothing, trigger_period=timedelta(0))) as session:
        failing = asyncio.ensure_future(pushed(session, note(number="7")))
        await until(lambda: queue.asked("complete") > 0)
        await pass_time(queue, 20 * SECOND)
        first = await failing
        again = await pushed(session, note(number="7"))

    assert ((first[0], first[1]), again) == ((503, "StoreUnavailableError"), (200, "ok"))


async def test_a_note_need_not_wait_for_its_round() -> None:
    queue, gate = memory(), Gate()
    await queue.queue("a")

    async with asking(dispatcher.handler(queue, callback=gate)) as session:
        answer = await pushed(session, note(), "/push?wait=false")
        await until(lambda: "a" in gate.inside)
        gate.let_go("a")

    assert answer == (202, "started")


async def test_a_note_that_waits_while_the_process_drains_is_refused() -> None:
    trigger = Trigger(Setup.of(memory(), nothing, DispatcherSettings(), None))

    async with asking(trigger.app()) as session:
        await pushed(session, note())
        waiting = asyncio.ensure_future(pushed(session, note()))
        await settle_down()
        await trigger.drain()
        answer = await waiting

    assert answer == (503, "draining")


async def test_a_note_whose_body_comes_in_while_the_process_drains_is_refused() -> None:
    queue, ledger = memory(), Ledger()
    await queue.queue("a")
    trigger = Trigger(Setup.of(queue, ledger, DispatcherSettings(), None))

    app = trigger.app()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        async def drained() -> Message:
            await trigger.drain()
            return await receive()

        await app(scope, drained if scope["type"] == "http" else receive, send)

    async with asking(slow) as session:
        answer = await pushed(session, note())

    assert (answer, ledger.called) == ((503, "draining"), {})


BAD = {
    "no json": b"hello",
    "no object": b"[]",
    "no message": b"{}",
    "a message of another kind": b'{"message": 5}',
    "no number": b'{"message": {}}',
    "attributes of another kind": b'{"message": {"messageId": "1", "attributes": 5}}',
    "nested too deeply": b"[" * 50_000,
    "not utf-8": b'{"message": "\xff"}',
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
async def test_what_is_no_push_request_is_refused(body: bytes) -> None:
    assert read_note(body) is None

    async with (
        asking(dispatcher.handler(memory(), callback=nothing)) as session,
        session.post("/push", data=body) as response,
    ):
        assert response.status == 400


@pytest.mark.parametrize("chunked", [None, True])
async def test_a_note_that_is_too_large_is_refused(chunked: bool | None) -> None:
    async with (
        asking(dispatcher.handler(memory(), callback=nothing)) as session,
        session.post("/push", data=b"x" * (MAX_NOTE_BYTES + 1), chunked=chunked) as response,
    ):
        assert response.status == 413


async def test_a_push_needs_the_token_that_the_trigger_asks_for() -> None:
    """Pub/Sub signs in with an OIDC token of the subscription's service account."""
    async with Issuer().served() as issuer:
        tokens = OIDCTokens(issuer.url, "https://me", subjects=["push@p.test"])
        app = cast(ASGIApp, BearerTokens(dispatcher.handler(memory(), callback=nothing), tokens))
        good = issuer.token(sub="1", email="push@p.test", email_verified=True)
        other = issuer.token(sub="2", email="somebody@else.test", email_verified=True)
        answers = []
        async with asking(app) as session:
            for headers in ({"Authorization": f"Bearer {good}"}, {"Authorization": f"Bearer {other}"}, {}):
                async with session.post("/push", json=note(), headers=headers) as response:
                    answers.append(response.status)
    assert answers == [200, 401, 401]
