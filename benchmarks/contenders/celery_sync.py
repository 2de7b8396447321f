"""Celery: lists; one process of 8 threads, which is faster than solo or prefork here; no results, no gossip."""

# mypy: disable-error-code="import-not-found"
# What it imports is installed in an environment of its own.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celery import Celery

from benchmarks.contenders.journal import PAUSE_SECONDS, REDIS_URL, run

ASYNC = False
THREADS = 4  # more are slower
app: Any = Celery("bench", broker=REDIS_URL)
app.conf.task_ignore_result = True
app.conf.worker_hijack_root_logger = False
if not PAUSE_SECONDS:  # 4 by default; its optimizing guide says 64 or 128 for many short tasks
    app.conf.worker_prefetch_multiplier = 64


noop: Any = app.task(name="noop")(run)


@contextmanager
def opened() -> Iterator[Any]:
    yield app


def one(_: Any, number: int) -> None:
    noop.apply_async((number,))


def bulk(_: Any, numbers: Sequence[int]) -> None:
    """Kombu's `Producer.batch`, which pipelines what is published in it if nothing is to be retried."""
    with app.producer_pool.acquire(block=True) as producer, producer.batch():
        for number in numbers:
            noop.apply_async((number,), producer=producer, retry=False)


def work() -> None:
    quiet = ["--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "--pool", "threads", "--concurrency", "8", *quiet])
