"""huey: a list, popped blockingly; 8 threads in one process."""

# mypy: disable-error-code="import-not-found,untyped-decorator"
# What it imports is installed in an environment of its own.
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huey import RedisHuey
from huey.consumer_options import ConsumerConfig

from benchmarks.contenders.journal import REDIS_URL, run

ASYNC = False
THREADS = 16  # it has no call for many; from one thread it is 3 times slower, since it waits for each answer
huey: Any = RedisHuey("bench", url=REDIS_URL, results=False)


noop: Any = huey.task()(run)


@contextmanager
def opened() -> Iterator[Any]:
    yield huey


def one(_: Any, number: int) -> None:
    noop(number)


def work() -> None:
    config = ConsumerConfig(workers=8, worker_type="thread", periodic=False)
    huey.create_consumer(**config.values).run()
