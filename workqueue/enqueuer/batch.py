"""Stage 1: one batch of keys on its way: what may pass is tried again, what cannot is reported key by key.

A batch that fails says little of its keys. A store that cannot be reached fails all of them; a key that it refuses must
not take the other 99 with it. So an error of the store is everybody's, and any other error is looked for key by key.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Protocol

from workqueue.clock import Clock, duration_us
from workqueue.errors import PartlyStoredError, StoreError, StoreUnavailableError
from workqueue.optional import BulkQueue, offers
from workqueue.options import CheckedItems, FailedKey, Options

__all__ = ["Batch", "Sink", "StampingSink", "may_pass", "pauses", "try_batch"]

_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(milliseconds=100), timedelta(seconds=5)


class Sink(Protocol):
    """Whatever takes keys: any queue, a gRPC client, an SQS queue. With a `queue_many` it takes them in batches."""

    async def queue(self, key: str, options: Options = Options()) -> None:
        """Store one key (see `WorkQueue.queue`)."""


class StampingSink(Protocol):
    """Optional: a sink that has to recognise a key which is sent again."""

    def stamped(self, options: Options) -> Options:
        """`options` with what all sendings of one put have in common."""


class Batch:
    """Keys that are being sent.

    Args:
        sink: where to.
        items: the keys, each with what is said about it; the batch keeps it.
        clock: where time comes from.
        limit: each could be stored by itself, with a payload of at most so many bytes; None = nobody looked.

    `waiting` are those that are still tried, `given_up` those that are not; the rest was stored.
    """

    def __init__(self, sink: Sink, items: dict[str, Options], clock: Clock, limit: int | None = None) -> None:
        self.keys = tuple(items)
        self.waiting = items
        self.given_up: list[FailedKey] = []
        self._sink = sink
        self._clock = clock
        self._limit = limit

    @property
    def stored(self) -> int:
        """How many are stored by now."""
        return len(self.keys) - len(self.waiting) - len(self.given_up)

    async def send(self, patience: timedelta) -> None:
        """Send until every key is stored or given up.

        A key is given up when the sink refuses it for good, or still fails after `patience`.
        """
        give_up_us = self._clock.steady_us() + duration_us(patience)
        for pause in pauses():
            errors = await try_batch(self._sink, self.waiting, self._limit)
            over = self._clock.steady_us() + pause * 1e6 >= give_up_us
            tried, self.waiting = self.waiting, {}
            for key, error in errors.items():
                if over or not may_pass(error):
                    self.given_up.append(FailedKey(key, tried[key], error))
                else:
                    self.waiting[key] = tried[key]
            if not self.waiting:
                return
            await self._clock.sleep(pause)


def pauses(rand: Callable[[], float] = random.random) -> Iterator[float]:
    """Seconds to wait between tries, without end: 0.1 doubling to 5, each cut by up to half at random."""
    pause = _FIRST_PAUSE
    while True:
        yield pause.total_seconds() * (1 - rand() / 2)
        pause = min(pause * 2, _LONGEST_PAUSE)


def may_pass(error: Exception) -> bool:
    """Whether the same call may succeed later."""
    return isinstance(error, StoreUnavailableError | OSError)


async def try_batch(sink: Sink, items: Mapping[str, Options], limit: int | None = None) -> Mapping[str, Exception]:
    """Send `items` once; returns what is wrong with those that are not known to be stored.

    `limit`: as in `Batch`.
    """
    bulk: object = sink
    if not offers(bulk, BulkQueue):
        return await _one_by_one(sink, items)
    try:
        await bulk.queue_many(list(items.items()) if limit is None else CheckedItems(items.items(), limit))
    except PartlyStoredError as partly:
        return {failed.key: failed.error for failed in partly.failed}
    except (StoreError, OSError) as error:
        return dict.fromkeys(items, error)
    except Exception as error:  # noqa: BLE001 - whatever a sink raises, its keys must be accounted for
        return await _one_by_one(sink, items) if len(items) > 1 else dict.fromkeys(items, error)
    return {}


async def _one_by_one(sink: Sink, items: Mapping[str, Options]) -> Mapping[str, Exception]:
    errors: dict[str, Exception] = {}
    down: Exception | None = None
    for key, options in items.items():
        if down is not None:  # each further key would wait for the same store
            errors[key] = down
            continue
        try:
            await sink.queue(key, options)
        except Exception as error:  # noqa: BLE001 - the others are still to be sent
            errors[key] = error
            down = error if isinstance(error, StoreError | OSError) else None
    return errors
