"""The command that enqueues the keys of CloudEvents: subscribe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from workqueue.backends import open_queue
from workqueue.cli.sources import PRIORITY, Always, SourceFlags, showing
from workqueue.programs.access import HTTP_PORT, PORT
from workqueue.programs.ending import run_server
from workqueue.programs.flags import Flag, naming, with_flags
from workqueue.programs.takes import Takes, whole

if TYPE_CHECKING:
    from workqueue.fallbacks import FullQueue
    from workqueue.rpc.client import Client
    from workqueue.sources.cloudevents import Filter, KeyOf

__all__ = ["EventPort", "KeyFlags", "subscribe"]


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
            takes=Takes("URL", str),
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


@with_flags
def subscribe(events: KeyFlags, source: SourceFlags, port: EventPort) -> None:
    """Enqueue the keys of CloudEvents that come in over HTTP.

    POST / takes them in binary, structured and batched mode. 202: the key is stored; 4xx: it can never be; 503: try
    again. --queue may be a receiver.
    """
    place = source.opened()
    events.parsed()
    run_server(_subscribe(events, place, source, port.http_port))


async def _subscribe(events: KeyFlags, place: Client | FullQueue, source: SourceFlags, port: int) -> None:
    from workqueue.sources.cloudevents import Subscription, Unparsable

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
        )
        async with showing(queue, source.listen, port, [subscription.route()]) as follow:
            follow(Always())
            await asyncio.Event().wait()


@asynccontextmanager
async def _perhaps(url: str | None) -> AsyncIterator[FullQueue | None]:
    if url is None:
        yield None
        return
    with naming("--unparsable"):
        place = open_queue(url)
    async with place as queue:
        yield queue
