"""taskiq on a list: nothing is acknowledged; 100 at a time in one process."""

# mypy: disable-error-code="import-not-found"
# What it imports is installed in an environment of its own.
from __future__ import annotations

from typing import Any

from taskiq_redis import ListQueueBroker

from benchmarks.contenders import taskiq_stream
from benchmarks.contenders.journal import REDIS_URL, run_async

ASYNC = True
# It waits in BRPOP without limit, which redis-py 8 takes for a dead connection after 5 s unless told otherwise.
broker: Any = ListQueueBroker(REDIS_URL, socket_timeout=None)
noop = broker.task(run_async)
taskiq_stream.broker, taskiq_stream.noop = broker, noop
opened, one = taskiq_stream.opened, taskiq_stream.one


def work() -> None:
    taskiq_stream.work(__name__)
