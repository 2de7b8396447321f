"""Stage 1: enqueues that are made at the same moment, stored in one call.

Most schedules tick on the hour. What their attempts enqueue in one turn of the event loop goes to the store together,
and each attempt goes on once its own key is stored. Nothing lingers for company.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from workqueue.errors import PartlyStoredError, StoreError
from workqueue.optional import BulkQueue, offers
from workqueue.options import Options

__all__ = ["Gathered", "Keys"]

_Waiting = tuple[str, Options, asyncio.Future[None]]


class Keys(Protocol):
    """Where keys go: a queue, or the client of a receiver. With a `queue_many` it takes many in one call."""

    async def queue(self, key: str, options: Options = Options()) -> None:
        """Store one key (see `WorkQueue.queue`)."""


class Gathered:
    """Stores keys in `sink`; those of one turn of the event loop go in one call, if it takes them so."""

    def __init__(self, sink: Keys) -> None:
        self._sink = sink
        self._bulk = sink if offers(sink, BulkQueue) else None
        self._waiting: list[_Waiting] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def queue(self, key: str, options: Options) -> None:
        """Store `key` (see `WorkQueue.queue`); raises what is wrong with this key, whatever becomes of the others."""
        if self._bulk is None:
            return await self._sink.queue(key, options)
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._send, self._bulk)
        self._waiting.append((key, options, stored))
        return await stored

    def _send(self, bulk: BulkQueue) -> None:
        waiting, self._waiting = self._waiting, []
        sending = self._one_by_one(waiting) if len(waiting) == 1 else self._together(bulk, waiting)
        call = asyncio.get_running_loop().create_task(sending)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _together(self, bulk: BulkQueue, waiting: list[_Waiting]) -> None:
        try:
            await bulk.queue_many([(key, options) for key, options, _ in waiting])
        except PartlyStoredError as partly:
            errors = {failed.key: failed.error for failed in partly.failed}
            for each in waiting:
                _end(each, errors.get(each[0]))
        except (StoreError, OSError) as error:  # everybody's
            for each in waiting:
                _end(each, error)
        except Exception:  # noqa: BLE001 - one key's, who gets it below: the others must not fail by it
            await self._one_by_one(waiting)
        else:
            for each in waiting:
                _end(each)

    async def _one_by_one(self, waiting: Iterable[_Waiting]) -> None:
        for each in waiting:
            try:
                await self._sink.queue(each[0], each[1])
            except Exception as error:  # noqa: BLE001 - whose attempt it is decides what it means
                _end(each, error)
            else:
                _end(each)


def _end(waiting: _Waiting, error: Exception | None = None) -> None:
    stored = waiting[2]
    if stored.done():  # its attempt was cancelled
        return
    if error is None:
        stored.set_result(None)
    else:
        stored.set_exception(error)
