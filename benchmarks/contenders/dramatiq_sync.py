"""Dramatiq: lists; one process of 8 threads, its default, and a large prefetch for draining no-ops."""

# mypy: disable-error-code="import-not-found,untyped-decorator"
# What it imports is installed in an environment of its own.
from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.contenders.journal import PAUSE_SECONDS, REDIS_URL, run

ASYNC = False
THREADS = 16  # it has no call for many: a group is sent one by one too
broker: Any = RedisBroker(url=REDIS_URL)
dramatiq.set_broker(broker)


noop: Any = dramatiq.actor(run)


@contextmanager
def opened() -> Iterator[Any]:
    yield broker
    broker.close()


def one(_: Any, number: int) -> None:
    noop.send(number)


def work() -> None:
    if not PAUSE_SECONDS:  # 2 for each thread by default; read when dramatiq.worker is imported
        os.environ["dramatiq_queue_prefetch"] = "2000"  # noqa: SIM112 - its name
    arguments = [__name__, "--processes", "1", "--threads", "8", "--skip-logging"]
    os.execv(sys.executable, [sys.executable, "-m", "dramatiq", *arguments])
