"""Stage 1: keys sent to an SQS queue: batches of ten and a mebibyte, and an account of every message in them.

async with SQSSink(Address.parse("sqs://sqs.eu-west-1.amazonaws.com/123456789012/builds")) as sink:
    async with BackgroundEnqueuer(sink, on_error=report) as enqueuer: ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

from workqueue.clock import Clock, SystemClock, duration_us
from workqueue.enqueuer.batch import pauses
from workqueue.enqueuer.buffer import merged
from workqueue.equipment import Equipment
from workqueue.errors import (
    InvalidOptionsError,
    PartlyStoredError,
    QueueClosedError,
    StoreError,
    StoreUnavailableError,
)
from workqueue.options import MAX_PAYLOAD_BYTES, FailedKey, Options, checked_items
from workqueue.sqs.address import Address
from workqueue.sqs.client import ERRORS, explain, open_client, too_long
from workqueue.sqs.message import MAX_MESSAGE_BYTES, Outgoing, outgoing, stamped

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient

__all__ = ["SQSSink", "batches"]

_MOST = 10
_AT_ONCE = 8


class SQSSink:
    """An SQS queue, wherever a producer takes a queue; an async context manager.

    A FIFO queue keeps the order of one key's messages: their group is the key.

    Args:
        address: which queue, and how long a message is tried.
        clock: where time comes from.
        max_payload: the largest payload accepted, in bytes.
    """

    def __init__(self, address: Address, *, clock: Clock | None = None, max_payload: int = MAX_PAYLOAD_BYTES) -> None:
        self.address = address
        self.equipment = Equipment(address.name, clock or SystemClock(), max_payload=max_payload)
        self._open = AsyncExitStack()
        self._client: SQSClient | None = None
        # Of two requests for one group the second may be the first to arrive.
        self._slots = asyncio.Semaphore(1 if address.fifo else _AT_ONCE)

    async def __aenter__(self) -> Self:
        self._client = await self._open.enter_async_context(open_client(self.address, _AT_ONCE))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._client = None
        await self._open.aclose()

    def stamped(self, options: Options) -> Options:
        """`options` with what makes SQS recognise a message that is sent again (see `StampingSink`)."""
        return stamped(options)

    async def queue(self, key: str, options: Options = Options()) -> None:
        """Send one key; when this returns, SQS has it.

        Raises:
            InvalidKeyError, PayloadTooLargeError: it was not sent.
            InvalidOptionsError: SQS refused it.
            StoreUnavailableError: SQS cannot be reached; sending it again is safe.
            StoreUnusableError: SQS refuses this client, or there is no such queue.
        """
        try:
            await self.queue_many([(key, options)])
        except PartlyStoredError as partly:
            raise partly.failed[0].error from partly

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        """Send keys; one that comes twice is merged. All are checked before any is sent.

        Raises:
            InvalidKeyError, PayloadTooLargeError: nothing was sent.
            PartlyStoredError: some were not taken, each for a reason that `queue` names; the others were.
        """
        checked = checked_items(items, self.equipment.max_payload)
        messages = [outgoing(key, options) for key, options in _merged(checked).items()]
        failed: list[FailedKey] = []
        async with asyncio.TaskGroup() as group:
            for batch in batches(messages):
                group.create_task(self._send(batch, failed))
        if failed:
            raise PartlyStoredError(failed)

    async def _send(self, batch: Sequence[Outgoing], failed: list[FailedKey]) -> None:
        """Send a batch until all of it was taken, refused or given up; calls `failed` for what was not taken."""
        clock = self.equipment.clock
        give_up_us = clock.steady_us() + duration_us(self.address.patience)
        for pause in pauses():
            async with self._slots:
                refused = await self._try(batch)
            over = clock.steady_us() + pause * 1e6 >= give_up_us
            passing = [message for message, error in refused if isinstance(error, StoreUnavailableError) and not over]
            failed += [FailedKey(m.key, m.options, error) for m, error in refused if m not in passing]
            if not passing:
                return
            batch = passing
            await clock.sleep(pause)

    async def _try(self, batch: Sequence[Outgoing]) -> list[tuple[Outgoing, Exception]]:
        """Send a batch once; returns what was not taken, and why."""
        entries = [message.entry(place, fifo=self.address.fifo) for place, message in enumerate(batch)]
        try:
            answer = await self._opened.send_message_batch(QueueUrl=self.address.queue_url, Entries=entries)  # type: ignore[arg-type]
        except ERRORS as error:
            if too_long(error) and len(batch) > 1:
                return [refused for message in batch for refused in await self._try([message])]
            wrong = InvalidOptionsError(str(error)) if too_long(error) else explain(error, self.address)
            return [(message, wrong) for message in batch]
        return [(batch[int(entry["Id"])], self._why(entry)) for entry in answer.get("Failed", ())]

    def _why(self, entry: Any) -> StoreError | InvalidOptionsError:
        text = f"SQS queue {self.address.name}: {entry.get('Code')}: {entry.get('Message', '')}"
        return InvalidOptionsError(text) if entry.get("SenderFault") else StoreUnavailableError(text)

    @property
    def _opened(self) -> SQSClient:
        if self._client is None:
            raise QueueClosedError("this sink is not open: use it inside 'async with SQSSink(…) as sink'")
        return self._client


def batches(messages: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """The messages in order, as few requests: at most ten and at most a mebibyte in each."""
    batch: list[Outgoing] = []
    size = 0
    for message in messages:
        if len(batch) == _MOST or (batch and size + len(message.body) > MAX_MESSAGE_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += len(message.body)
    if batch:
        yield batch


def _merged(items: Iterable[tuple[str, Options]]) -> dict[str, Options]:
    kept: dict[str, Options] = {}
    for key, options in items:
        both = merged(kept[key], options) if key in kept else options
        if both is None:
            raise InvalidOptionsError(f"key {key!r} comes twice, and its meta is too large to be merged")
        kept[key] = both
    return kept
