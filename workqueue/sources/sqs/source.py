"""Stage 1: messages of an SQS queue become keys: deleted once their key is stored, and hidden from others until then.

    async with SQSSource(address, queue) as source:
        await source.run()

A message that can never be a key stays where it is, so that the redrive policy of its queue takes it to a dead-letter
queue. A message whose key was stored but that could not be deleted comes again, and its key merges or runs once more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self

from workqueue.clock import Clock, SystemClock
from workqueue.enqueuer.batch import Sink, may_pass, pauses, try_batch
from workqueue.enqueuer.buffer import merged
from workqueue.equipment import Equipment
from workqueue.errors import InvalidSettingError, StoreUnavailableError, StoreUnusableError
from workqueue.key import validate_key
from workqueue.options import Options, check_payload
from workqueue.sources.sqs.keys import KeyOf, Message, own_or_number
from workqueue.sqs.address import Address
from workqueue.sqs.client import ERRORS, explain, open_client
from workqueue.telemetry.samples import Sample

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient

__all__ = ["Result", "SQSMetrics", "SQSSettings", "SQSSource"]

log = logging.getLogger(__name__)

_MOST = 10
_LONG_POLL_SECONDS = 20
_DELETIONS = 3

Result = Literal["stored", "refused", "undeleted"]
"""What became of a message: its key was stored and it is gone; it can never be a key; or it is stored and will come
again, because it could not be deleted."""


@dataclass(frozen=True, slots=True)
class SQSSettings:
    """How messages are received.

    Args:
        receivers: how many requests for messages are under way at a time (1 to 100); each brings up to ten.
        hidden: how long a message is hidden from others before that is extended (2 s to 12 h).

    Raises:
        InvalidSettingError: a value is out of range.
    """

    receivers: int = 2
    hidden: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        if not 1 <= self.receivers <= 100:
            raise InvalidSettingError(f"receivers is a whole number from 1 to 100, not {self.receivers}")
        if not timedelta(seconds=2) <= self.hidden <= timedelta(hours=12):
            raise InvalidSettingError(f"hidden takes a duration from 2 s to 12 h, not {self.hidden}")


class SQSMetrics:
    """What became of messages. `name` is that of the queue that they feed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: dict[Result, int] = {"stored": 0, "refused": 0, "undeleted": 0}

    def samples(self) -> Iterator[Sample]:
        """For `Exposition(sources=[metrics])`."""
        for result, number in self.messages.items():
            yield "workqueue_source_messages_total", ("sqs", result), number


class SQSSource:
    """Takes the messages of an SQS queue into `queue`.

    Args:
        address: the SQS queue.
        queue: where keys go: any queue, or the client of a receiver.
        key_of: what a message is a key of; by default what `SQSSink` sent, and its own number for any other message.
        settings: how messages are received.
        clock: where time comes from.
    """

    def __init__(
        self,
        address: Address,
        queue: Sink,
        key_of: KeyOf | None = None,
        settings: SQSSettings = SQSSettings(),
        *,
        clock: Clock | None = None,
    ) -> None:
        equipment = Equipment.of(queue)
        self.metrics = SQSMetrics(equipment.name)
        self.ready = False
        """Whether the last request for messages was answered."""
        self._address = address
        self._queue = queue
        self._key_of = key_of or own_or_number
        self._settings = settings
        self._clock = clock or SystemClock()
        self._max_payload = equipment.max_payload
        self._open = AsyncExitStack()
        self._client: SQSClient
        self._ending = asyncio.Event()
        self._receiving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        connections = self._settings.receivers * 3
        self._client = await self._open.enter_async_context(open_client(self._address, connections))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._open.aclose()

    async def run(self) -> None:
        """Take messages until `end`; what was received is then stored first. A cancellation leaves it to come again.

        Raises:
            StoreUnusableError: SQS or the store needs an operator; messages not yet stored come again.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._receiving = {group.create_task(self._receive()) for _ in range(self._settings.receivers)}
        except* StoreUnusableError as errors:
            raise errors.exceptions[0] from errors

    def end(self) -> None:
        """Ask for no more messages."""
        self.ready = False
        self._ending.set()

    def hurry(self) -> None:
        """Leave what was received and is not stored to come again."""
        for task in self._receiving:
            task.cancel()

    async def _receive(self) -> None:
        waits = pauses()
        while not self._ending.is_set():
            try:
                messages = await self._next_messages()
            except StoreUnavailableError as error:
                self.ready = False
                log.warning("no messages can be received, trying again: %s", error)
                await self._rest(next(waits))
                continue
            self.ready, waits = True, pauses()
            if messages:
                async with self._hidden(messages):
                    await self._take(messages)

    async def _next_messages(self) -> list[Message]:
        """What a long poll brings; nothing if it is time to end."""
        asking = asyncio.ensure_future(self._ask())
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((asking, ending), return_when=asyncio.FIRST_COMPLETED)
            return await asking if asking.done() else []
        except ERRORS as error:
            raise explain(error, self._address) from error
        finally:
            asking.cancel()
            ending.cancel()

    async def _ask(self) -> list[Message]:
        answer = await self._client.receive_message(
            QueueUrl=self._address.queue_url,
            MaxNumberOfMessages=_MOST,
            WaitTimeSeconds=_LONG_POLL_SECONDS,
            VisibilityTimeout=int(self._settings.hidden.total_seconds()),
            MessageAttributeNames=["All"],
        )
        return [_message(received) for received in answer.get("Messages", ())]

    async def _rest(self, seconds: float) -> None:
        resting = asyncio.ensure_future(self._clock.sleep(seconds))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((resting, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            resting.cancel()
            ending.cancel()

    async def _take(self, messages: Sequence[Message]) -> None:
        """Store the keys of messages, and delete each message once its key is stored."""
        for items, of in self._rounds(messages):
            stored, refused = await self._store(items)
            for key, error in refused.items():
                for message in of[key]:
                    self._refuse(message, error)
            await self._delete([message for key in stored for message in of[key]])

    def _rounds(self, messages: Sequence[Message]) -> Iterator[tuple[dict[str, Options], dict[str, list[Message]]]]:
        """The keys of messages, merged, each with the messages that it came in; those that cannot merge come later."""
        items: dict[str, Options] = {}
        of: dict[str, list[Message]] = {}
        for message in messages:
            try:
                key, options = self._read(message)
            except ValueError as error:
                self._refuse(message, error)
                continue
            both = merged(items[key], options) if key in items else options
            if both is None:
                yield items, of
                items, of, both = {}, {}, options
            items[key] = both
            of.setdefault(key, []).append(message)
        if items:
            yield items, of

    def _read(self, message: Message) -> tuple[str, Options]:
        key, options = self._key_of(message)
        check_payload(options.payload, self._max_payload)
        return validate_key(key), options

    async def _store(self, items: dict[str, Options]) -> tuple[list[str], dict[str, Exception]]:
        """Store keys, however long that takes, unless it is time to end; returns those stored and those refused.

        Raises:
            StoreUnusableError: the store needs an operator.
        """
        stored: list[str] = []
        refused: dict[str, Exception] = {}
        waiting = dict(items)
        for pause in pauses():
            errors = await try_batch(self._queue, waiting)
            unusable = [error for error in errors.values() if isinstance(error, StoreUnusableError)]
            if unusable:
                raise unusable[0]
            stored += [key for key in waiting if key not in errors]
            refused |= {key: error for key, error in errors.items() if not may_pass(error)}
            waiting = {key: waiting[key] for key in errors if key not in refused}
            if not waiting or self._ending.is_set():
                break
            log.warning("%d keys cannot be stored, trying again: %s", len(waiting), errors[next(iter(waiting))])
            await self._rest(pause)
        return stored, refused

    def _refuse(self, message: Message, error: Exception) -> None:
        self.metrics.messages["refused"] += 1
        log.error("message %s can never be a key, and stays in its queue: %s", message.number, error)

    async def _delete(self, messages: Sequence[Message]) -> None:
        """Delete messages; those that cannot be deleted come again."""
        left = list(messages)
        for pause, _ in zip(pauses(), range(_DELETIONS), strict=False):
            left = await self._try_delete(left)
            if not left:
                break
            await self._clock.sleep(pause)
        self.metrics.messages["stored"] += len(messages) - len(left)
        self.metrics.messages["undeleted"] += len(left)
        if left:
            log.warning("%d messages were stored and could not be deleted; they will come again", len(left))

    async def _try_delete(self, messages: list[Message]) -> list[Message]:
        if not messages:
            return []
        entries: Any = [{"Id": str(place), "ReceiptHandle": each.receipt} for place, each in enumerate(messages)]
        try:
            answer = await self._client.delete_message_batch(QueueUrl=self._address.queue_url, Entries=entries)
        except ERRORS as error:
            log.debug("messages could not be deleted: %s", error)
            return messages
        return [messages[int(failed["Id"])] for failed in answer.get("Failed", ())]

    @asynccontextmanager
    async def _hidden(self, messages: Sequence[Message]) -> AsyncIterator[None]:
        """Keep messages hidden from others until the block ends, however long that takes."""
        extending = asyncio.ensure_future(self._extend(messages))
        try:
            yield
        finally:
            extending.cancel()
            await asyncio.wait((extending,))

    async def _extend(self, messages: Sequence[Message]) -> None:
        seconds = int(self._settings.hidden.total_seconds())
        entries: Any = [
            {"Id": str(place), "ReceiptHandle": each.receipt, "VisibilityTimeout": seconds}
            for place, each in enumerate(messages)
        ]
        while True:
            await self._clock.sleep(seconds / 3)
            try:
                await self._client.change_message_visibility_batch(QueueUrl=self._address.queue_url, Entries=entries)
            except ERRORS as error:
                log.warning("messages may come again before they are stored: %s", explain(error, self._address))


def _message(received: Any) -> Message:
    attributes = {name: value.get("StringValue", "") for name, value in received.get("MessageAttributes", {}).items()}
    return Message(received["MessageId"], received["Body"], attributes, received["ReceiptHandle"])
