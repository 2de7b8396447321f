"""Celery: lists; one process of 8 threads, results ignored, no gossip between workers."""

# mypy: disable-error-code="import-not-found"
# What it imports is installed in an environment of its own.
from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery

from benchmarks.contenders.journal import ENDED, PAUSE_SECONDS, REDIS_URL, write

ASYNC = False
app: Any = Celery("bench", broker=REDIS_URL)
app.conf.task_ignore_result = True
app.conf.worker_hijack_root_logger = False


def run(number: int) -> None:
    write(number)
    if PAUSE_SECONDS:
        time.sleep(PAUSE_SECONDS)
        write(number | ENDED)


noop: Any = app.task(name="noop")(run)


@contextmanager
def opened() -> Iterator[Any]:
    with app.producer_pool.acquire(block=True) as producer:
        yield producer


def one(producer: Any, number: int) -> None:
    noop.apply_async((number,), producer=producer)


def work() -> None:
    quiet = ["--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "--pool", "threads", "--concurrency", "8", *quiet])
