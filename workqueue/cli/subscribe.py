"""The command that enqueues the keys of events and messages: subscribe, to CloudEvents over HTTP or to an SQS queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from workqueue.backends import open_queue
from workqueue.cli.sources import PRIORITY, SourceFlags, showing
from workqueue.equipment import Equipment
from workqueue.programs.access import HTTP_PORT, PORT
from workqueue.programs.converters import URL, Converter, whole
from workqueue.programs.ending import run_server
from workqueue.programs.flags import Flag, naming, with_flags
from workqueue.readiness import of_store

if TYPE_CHECKING:
    from workqueue.fallbacks import FullQueue
    from workqueue.rpc.client import Client
    from workqueue.sources.cloudevents import Filter, KeyOf
    from workqueue.sources.sqs import SQSSource

__all__ = ["EventPort", "KeyFlags", "SQSFlags", "subscribe"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EventPort:
    """Where events come in, beside probes and metrics."""

    http_port: Annotated[
        int, Flag("CloudEvents, probes and /metrics; 0 = any free one", ("WORKQUEUE_HTTP_PORT", "PORT"), PORT)
    ] = HTTP_PORT


@dataclass(frozen=True, slots=True)
class KeyFlags:
    """What becomes of an event."""

    key: Annotated[
        str,
        Flag(
            "its key: an attribute or extension, a path such as data.user.id, or a template such as {source}/{subject}"
        ),
    ] = "subject"
    filter: Annotated[
        tuple[str, ...], Flag("only events with FIELD=VALUE, ^= (prefix), $= (suffix), != (not), or JSON", many=True)
    ] = ()
    priority: Annotated[int, Flag("of the keys", takes=PRIORITY)] = 0
    with_event: Annotated[bool, Flag("keep the newest event of a key as its payload")] = False
    unparsable: Annotated[
        str | None,
        Flag(
            "a queue without a dispatcher for events that can never be keys; none = refuse them",
            takes=URL,
        ),
    ] = None
    max_body: Annotated[int, Flag("the largest request in bytes", takes=whole(1))] = 1024 * 1024

    def parsed(self) -> tuple[KeyOf, list[Filter]]:
        """How keys are made, and of which events.

        Raises:
            InvalidSettingError: an expression is none.
        """
        from workqueue.sources.cloudevents import KeyOf, parse_filter

        with naming("--key"):
            key = KeyOf.parse(self.key)
        with naming("--filter"):
            return key, [parse_filter(each) for each in self.filter]


@dataclass(frozen=True, slots=True)
class SQSFlags:
    """Messages of an SQS queue, in place of events."""

    sqs: Annotated[
        str | None,
        Flag("an SQS queue to take messages from instead of HTTP; needs [sqs]", ("WORKQUEUE_SQS",), URL),
    ] = None
    message_key: Annotated[
        str,
        Flag(
            "the key of a message: own, body, attribute:NAME or json:PATH",
            ("WORKQUEUE_MESSAGE_KEY",),
            Converter("KEY", str),
        ),
    ] = "own"
    receivers: Annotated[int, Flag("requests for messages at a time", ("WORKQUEUE_SQS_RECEIVERS",), whole(1, 100))] = 2

    def taken(self, url: str, queue: Client | FullQueue) -> SQSSource:
        """The source of messages, to be entered.

        Raises:
            InvalidSettingError: the URL is none, or --message-key is none of what it takes.
            MissingExtraError: the driver is not installed.
        """
        from workqueue.sources.sqs import SQSSettings, SQSSource, parse_key
        from workqueue.sqs.address import Address

        with naming("--message-key or WORKQUEUE_MESSAGE_KEY"):
            key_of = parse_key(self.message_key)
        with naming("--sqs or WORKQUEUE_SQS"):
            return SQSSource(Address.parse(url), queue, key_of, SQSSettings(self.receivers))


@with_flags
def subscribe(events: KeyFlags, messages: SQSFlags, source: SourceFlags, port: EventPort) -> None:
    """Enqueue the keys of CloudEvents that come in over HTTP, or of messages of an SQS queue.

    POST / takes events in binary, structured and batched mode. 202: the key is stored; 4xx: it can never be; 503: try
    again. With --sqs messages are taken from that queue, and deleted once their keys are stored. --queue may be a
    receiver.
    """
    place = source.opened()
    if messages.sqs is not None:
        messages.taken(messages.sqs, place)
        run_server(_take(messages, messages.sqs, place, source, port.http_port))
        return
    events.parsed()
    run_server(_subscribe(events, place, source, port.http_port))


async def _subscribe(events: KeyFlags, place: Client | FullQueue, source: SourceFlags, port: int) -> None:
    from workqueue.sources.cloudevents import EventMetrics, Subscription, Unparsable

    key, filters = events.parsed()
    async with place as queue, _perhaps(events.unparsable) as letters:
        subscription = Subscription(
            queue,
            key,
            filters,
            priority=events.priority,
            with_event=events.with_event,
            unparsable=None if letters is None else Unparsable(letters),
            max_body=events.max_body,
            metrics=EventMetrics(Equipment.of(queue).name),
        )
        async with showing(queue, source.listen, port, [subscription.route()], [subscription.metrics]) as follow:
            follow(of_store(queue))
            await asyncio.Event().wait()


class _Answered:
    """Ready: the last request for messages was answered."""

    def __init__(self, source: SQSSource) -> None:
        self._source = source

    async def why_unready(self) -> str:
        return "" if self._source.ready else "messages cannot be received; the log says why"


async def _take(messages: SQSFlags, url: str, place: Client | FullQueue, source: SourceFlags, port: int) -> None:
    from workqueue.signals import until_signalled

    async with (
        place as queue,
        messages.taken(url, queue) as taken,
        showing(queue, source.listen, port, sources=[taken.metrics]) as follow,
    ):
        follow(_Answered(taken))
        log.info("taking messages of %s", url.partition("?")[0])
        with until_signalled(taken.end, taken.hurry):
            await taken.run()


@asynccontextmanager
async def _perhaps(url: str | None) -> AsyncIterator[FullQueue | None]:
    if url is None:
        yield None
        return
    with naming("--unparsable"):
        place = open_queue(url)
    async with place as queue:
        yield queue
