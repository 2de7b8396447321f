"""Payload and meta come back as they were stored; where two meet, the newest that is set wins, meta name by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from workqueue.conformance.case import Case, expect, expect_of, refused
from workqueue.conformance.scenario import scenario, scenarios
from workqueue.errors import PayloadTooLargeError
from workqueue.interface import OwnedInProgressKey
from workqueue.options import MAX_META_BYTES, MAX_PAYLOAD_BYTES, Options

Settle = Callable[[OwnedInProgressKey], Awaitable[bool]]

PAYLOADS = {
    "every byte": bytes(range(256)),
    "no text": b"\xff\xfe\x00\x00\x80",
    "an empty one": b"",
    "the largest": bytes(MAX_PAYLOAD_BYTES),
}

METAS: dict[str, Mapping[str, str]] = {
    "a trace": {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
    "odd values": {"a": "", "b": " = ; \n\t\x00", "c": "日本 \U0001f600", "d": '"{}[]\\'},
    "odd names": {"A.b-c_9": "1", "-": "2", "_": "3", "0": "4"},
    "names that differ in case": {"a": "1", "A": "2"},
    "the largest": {"n": "x" * (MAX_META_BYTES - 1)},
}


@scenarios(PAYLOADS)
async def a_payload_comes_back_as_it_was(case: Case, payload: bytes) -> None:
    await case.enqueue("a", payload=payload)
    expect((await case.get("a")).payload, payload, "the payload of the queued key")
    expect((await case.listed("a")).payload, payload, "the payload of the listed key")
    owned = await case.start("a")
    expect(owned.payload, payload, "the payload of the owned key")
    await owned.dead_letter("boom")
    expect((await case.dead_letter("a")).payload, payload, "the payload of the dead letter")


@scenarios(METAS)
async def meta_comes_back_as_it_was(case: Case, meta: Mapping[str, str]) -> None:
    await case.enqueue("a", meta=meta)
    expect(dict((await case.get("a")).meta), dict(meta), "the meta of the queued key")
    owned = await case.start("a")
    expect(dict(owned.meta), dict(meta), "the meta of the owned key")
    await owned.dead_letter("boom")
    expect(dict((await case.dead_letter("a")).meta), dict(meta), "the meta of the dead letter")


@scenario()
async def a_key_without_payload_and_meta_has_none(case: Case) -> None:
    owned = await case.started("a")
    expect_of(owned, "the owned key", payload=None, meta={})


@scenario()
async def a_payload_that_is_too_large_is_refused_and_nothing_is_stored(case: Case) -> None:
    large = Options(payload=bytes(MAX_PAYLOAD_BYTES + 1))
    await refused(PayloadTooLargeError, case.queue.queue("a", large))
    await refused(PayloadTooLargeError, case.queue.queue_many([("b", Options()), ("a", large)]))
    expect(await case.eligible(), [], "the eligible keys")


@scenario()
async def an_enqueue_brings_the_newer_payload(case: Case) -> None:
    await case.enqueue("a", payload=b"old")
    await case.enqueue("a", payload=b"new")
    expect((await case.get("a")).payload, b"new", "the payload")
    await case.enqueue("a", priority=1)
    expect((await case.get("a")).payload, b"new", "the payload after an enqueue without one")
    await case.enqueue("a", payload=b"")
    expect((await case.get("a")).payload, b"", "the payload after an enqueue with an empty one")


@scenario()
async def an_enqueue_brings_newer_meta_name_by_name(case: Case) -> None:
    await case.enqueue("a", meta={"kept": "1", "changed": "1"})
    await case.enqueue("a", meta={"changed": "2", "added": "2"})
    await case.enqueue("a")
    expect(dict((await case.get("a")).meta), {"kept": "1", "changed": "2", "added": "2"}, "the meta")


async def _requeue(owned: OwnedInProgressKey) -> bool:
    return await owned.requeue(delay=timedelta(seconds=1))


async def _back_off(owned: OwnedInProgressKey) -> bool:
    return await owned.requeue(backoff=timedelta(seconds=1))


async def _release(owned: OwnedInProgressKey) -> bool:
    return await owned.release()


RETURNS = {"requeue": _requeue, "requeue after a failure": _back_off, "release": _release}


@scenarios(RETURNS)
async def a_key_that_returns_keeps_its_payload_and_meta(case: Case, settle: Settle) -> None:
    owned = await case.started("a", payload=b"kept", meta={"kept": "1"})
    await settle(owned)
    state = await case.get("a")
    expect_of(state, "the state", payload=b"kept", meta={"kept": "1"})


@scenarios(RETURNS)
async def a_key_that_returns_is_older_than_its_twin(case: Case, settle: Settle) -> None:
    owned = await case.started("a", payload=b"old", meta={"kept": "1", "changed": "1"})
    await case.enqueue("a", payload=b"new", meta={"changed": "2"})
    await settle(owned)
    state = await case.get("a")
    expect_of(state, "the state", payload=b"new", meta={"kept": "1", "changed": "2"})


@scenarios(RETURNS)
async def a_key_that_returns_fills_in_what_its_twin_lacks(case: Case, settle: Settle) -> None:
    owned = await case.started("a", payload=b"old", meta={"kept": "1"})
    await case.enqueue("a")
    await settle(owned)
    state = await case.get("a")
    expect_of(state, "the state", payload=b"old", meta={"kept": "1"})


@scenario()
async def a_twin_has_its_own_payload_and_the_attempt_keeps_its_own(case: Case) -> None:
    owned = await case.started("a", payload=b"running", meta={"a": "1"})
    await case.enqueue("a", payload=b"twin")
    state = await case.get("a")
    expect(owned.payload, b"running", "the payload in progress")
    expect(state.payload, b"running", "the payload in its state")
    await owned.complete()
    again = await case.start("a")
    expect_of(again, "the next attempt", payload=b"twin", meta={})
