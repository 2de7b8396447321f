"""Whoever stands before a reconciler may answer for it: what its UNAVAILABLE costs, and how the key is told from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest

import dispatcher
from dispatcher import Dispatcher, DispatcherSettings, TargetUnavailableError
from tests.support.dispatching import Recorder, clock_of, until
from tests.support.targets import Health, aborting, queued_keys, reconciler
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.rpc.pb import workqueue_pb2 as pb

SECOND = timedelta(seconds=1)


async def while_time_passes(queue: MemoryQueue, happened: Callable[[], bool]) -> None:
    """Let time pass until something has happened that takes a real call."""
    while not happened():
        clock_of(queue).advance(SECOND)
        await asyncio.sleep(0.01)


async def test_an_unmarked_unavailable_costs_no_attempt_while_nothing_else_was_answered() -> None:
    """A proxy says so of a reconciler that is down, over a connection that is fine."""
    queue = await queued_keys(*(f"k{number}" for number in range(40)))

    async with reconciler(aborting(grpc.StatusCode.UNAVAILABLE, "502")) as (_, callback):
        for _ in range(3):
            with pytest.raises(TargetUnavailableError, match="502"):
                await dispatcher.handle(queue, callback=callback, concurrency=20, max_retry=1)
    counts = await queue.counts()

    assert (counts.queued, counts.dead_lettered) == (40, 0)


async def test_an_unmarked_unavailable_counts_against_its_key_if_another_was_answered_meanwhile() -> None:
    queue, errors, others = await queued_keys("a", "b"), Recorder(), asyncio.Event()

    async def process(request: pb.ProcessRequest, context: Any) -> pb.ProcessResponse:
        if request.key == "a":
            await others.wait()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no luck")
        return pb.ProcessResponse()

    async with reconciler(process) as (_, callback), Dispatcher(queue, callback, errors=errors) as dispatching:
        await until(lambda: dispatching.metrics.outcomes["completed"] == 1)
        others.set()
        await until(lambda: bool(errors.events))

    assert errors.told == [("a", "requeued")]
    assert errors.events[0].failure.infrastructure


async def test_a_key_that_alone_is_refused_by_a_reconciler_that_says_it_serves_is_given_up() -> None:
    queue, health = await queued_keys("poison"), Health()
    settings = DispatcherSettings(max_retry=2, backoff=lambda attempts: SECOND)

    async with (
        reconciler(aborting(grpc.StatusCode.UNAVAILABLE), health) as (_, callback),
        Dispatcher(queue, callback, settings) as dispatching,
    ):
        outcomes = dispatching.metrics.outcomes
        await while_time_passes(queue, lambda: outcomes["released"] >= 8)
        down = outcomes["retried"]
        health.is_serving = True
        await while_time_passes(queue, lambda: outcomes["dead-lettered"] == 1)

    assert down == 0


async def test_a_call_that_is_not_answered_in_time_is_no_sign_of_life() -> None:
    queue = await queued_keys("a")

    async with reconciler(aborting(grpc.StatusCode.DEADLINE_EXCEEDED)) as (_, callback):
        await dispatcher.handle(queue, callback=callback)
        assert callback.outage.answers == 0
