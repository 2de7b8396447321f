"""`sys.exit` in a callback, or in a task that it started: the attempt has failed, and the process goes on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from dispatcher import Attempt, Dispatcher, DispatcherSettings, handle
from tests.support.dispatching import dead_letters, memory, running, settle_down, states


async def leave() -> None:
    await asyncio.sleep(0)
    sys.exit(3)


async def plainly(key: str, attempt: Attempt) -> None:
    sys.exit(3)


async def in_a_group(key: str, attempt: Attempt) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leave())


async def in_a_task(key: str, attempt: Attempt) -> None:
    await asyncio.create_task(leave())


async def in_a_task_of_a_task(key: str, attempt: Attempt) -> None:
    await asyncio.gather(asyncio.create_task(in_a_group(key, attempt)), asyncio.sleep(0))


async def when_cancelled(key: str, attempt: Attempt) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            sys.exit(3)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel()
    await task


EXITED = "ExitedError: a task of the callback called sys.exit(3)"


@pytest.mark.parametrize(
    ("exits", "text"),
    [
        (plainly, "SystemExit: 3"),
        (in_a_group, EXITED),
        (in_a_task, EXITED),
        (in_a_task_of_a_task, EXITED),
        (when_cancelled, EXITED),
    ],
)
async def test_a_callback_that_exits_fails_its_attempt_and_the_others_go_on(
    exits: Callable[[str, Attempt], Awaitable[None]], text: str
) -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        if key == "bad":
            await exits(key, attempt)

    await queue.queue("bad")
    async with running(Dispatcher(queue, reconcile, DispatcherSettings(max_retry=1))):
        await queue.queue("good")
        await settle_down()

        assert await states(queue, "good") == {"good": "UNKNOWN"}
    assert await dead_letters(queue) == {"bad": text}


async def test_a_task_that_is_cancelled_before_it_begins_leaves_nothing_behind() -> None:
    queue, began = memory(), []

    async def child() -> None:
        began.append("child")

    async def reconcile(key: str, attempt: Attempt) -> None:
        task = asyncio.create_task(child(), name="mine")
        assert "mine" in repr(task)
        assert "child" in repr(task)
        task.cancel()
        await asyncio.wait((task,))

    await queue.queue("a")
    await handle(queue, callback=reconcile, max_retry=1)

    assert await states(queue, "a") == {"a": "UNKNOWN"}
    assert began == []


async def test_the_loop_has_its_own_task_factory_back_after_the_last_round() -> None:
    loop, queue, made = asyncio.get_running_loop(), memory(), []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    await queue.queue("a")
    async with running(Dispatcher(queue, in_a_group, DispatcherSettings(backoff=lambda attempts: timedelta(hours=1)))):
        await handle(queue, callback=in_a_group)
        assert loop.get_task_factory() is not factory

    assert loop.get_task_factory() is factory
    assert any("leave" in str(coro) or getattr(coro, "__name__", "") == "leave" for coro in made)
