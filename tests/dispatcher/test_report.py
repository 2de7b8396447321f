"""The lines that an operator reads of attempts and orphans."""

from __future__ import annotations

import logging
import traceback
from datetime import timedelta

import pytest

import dispatcher
from dispatcher import Attempt, Callback
from dispatcher.report import Reports
from tests.support.dispatching import memory
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.clock import from_us
from workqueue.optional import RecoveredOrphan


async def failing(key: str, attempt: Attempt) -> None:
    raise ValueError("no")


async def queued(key: str) -> MemoryQueue:
    queue = memory()
    await queue.queue(key)
    return queue


async def test_a_failed_attempt_is_one_line_with_its_key_its_error_and_when_it_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    delay = timedelta(seconds=37.61926)

    await dispatcher.handle(await queued("a"), callback=failing, backoff=lambda attempts: delay)

    [line] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert line.getMessage() == "key 'a' retried at attempt 1, again in 37.6 s: ValueError: no"


def failing_in_a_thread(key: str, attempt: Attempt) -> None:
    raise ValueError("no")


@pytest.mark.parametrize("callback", [failing, failing_in_a_thread])
async def test_a_traceback_begins_where_the_callback_does(callback: Callback, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    await dispatcher.handle(await queued("a"), callback=callback)

    [line] = [record for record in caplog.records if record.getMessage() == "where key 'a' failed:"]
    assert line.exc_info is not None
    assert [frame.name for frame in traceback.extract_tb(line.exc_info[2])] == [callback.__name__]


@pytest.mark.parametrize(("owner", "named"), [("", ""), ("host-1", " of 'host-1'")], ids=["nameless", "named"])
def test_an_orphan_is_named_with_its_owner_if_that_has_a_name(
    owner: str, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    orphan = RecoveredOrphan("a", 2, owner, 0, from_us(1), dead_lettered=False)

    Reports("q", None).recovered([orphan], 0)

    assert caplog.messages == [f"orphan 'a'{named} queued again at attempt 2"]
