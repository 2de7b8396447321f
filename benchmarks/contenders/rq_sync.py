"""RQ: lists; one at a time in the worker's own process, which is its fastest way; no results kept."""

# mypy: disable-error-code="import-not-found"
# What it imports is installed in an environment of its own.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker
from rq.exceptions import DuplicateJobError

from benchmarks.contenders.journal import REDIS_URL, run

ASYNC = False
THREADS = 16


@contextmanager
def opened() -> Iterator[Any]:
    with Redis.from_url(REDIS_URL) as connection:
        yield Queue(connection=connection)


def one(queue: Any, number: int) -> None:
    queue.enqueue(run, number, result_ttl=0)


def duplicate(queue: Any, number: int) -> None:
    with suppress(DuplicateJobError):
        queue.enqueue(run, number, result_ttl=0, job_id=f"key-{number:020}", unique=True)


def bulk(queue: Any, numbers: Sequence[int]) -> None:
    for first in range(0, len(numbers), 1000):
        queue.enqueue_many([Queue.prepare_data(run, (n,), result_ttl=0) for n in numbers[first : first + 1000]])


def work() -> None:
    with Redis.from_url(REDIS_URL) as connection:
        SimpleWorker([Queue(connection=connection)], connection=connection).work(logging_level="ERROR")
