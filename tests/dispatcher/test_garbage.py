"""What an attempt leaves behind in this process: nothing that only the garbage collector would find."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from dispatcher import Attempt, Dispatcher
from workqueue import NonRetriableError, Options
from workqueue.backends.url import open_queue

KEYS = 200


@pytest.mark.parametrize("failing", [False, True], ids=["completed", "failed"])
@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_an_attempt_leaves_no_cycle_behind(backend: str, failing: bool, tmp_path: Path) -> None:
    left, done = KEYS, asyncio.Event()

    async def reconcile(key: str, attempt: Attempt) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()
        if failing:
            raise NonRetriableError("no")

    url = "memory://" if backend == "memory" else f"sqlite:///{tmp_path}/q.db"
    async with open_queue(url) as queue:
        await queue.queue_many([(f"k{number}", Options()) for number in range(KEYS)])
        gc.freeze()  # what was there before is no concern of this test, and would be looked through
        gc.disable()
        try:
            async with Dispatcher(queue, reconcile):
                await done.wait()
            garbage = gc.collect()
        finally:
            gc.enable()
            gc.unfreeze()

    assert garbage < KEYS, "at least an object a key"
