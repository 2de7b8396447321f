"""The commands about single keys: enqueue, get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from workqueue.backends import open_queue
from workqueue.errors import InvalidKeyError, InvalidSettingError, WorkQueueError
from workqueue.fallbacks import FullQueue
from workqueue.interface import KeyState
from workqueue.key import validate_key
from workqueue.optional import Found, SearchableQueue, offers
from workqueue.options import MAX_PRIORITY, Options
from workqueue.programs import printing
from workqueue.programs.access import CallFlags
from workqueue.programs.converters import CONTENT, DURATION, MOMENT, PAIR, whole
from workqueue.programs.flags import Flag, naming, with_flags
from workqueue.programs.key_arguments import Keys, StdinFlags, given_batches
from workqueue.programs.progress import Advance, progress
from workqueue.programs.settings import OutputFlags, QueueFlags, is_receiver, is_sqs
from workqueue.programs.sweep import Report, sweep
from workqueue.sweeping import Act

if TYPE_CHECKING:
    from workqueue.rpc.client import Client
    from workqueue.sqs.sink import SQSSink

__all__ = [
    "EnqueueFlags",
    "ReceiverFlags",
    "each_named",
    "enqueue",
    "get",
    "opened",
]

_Key = Annotated[str, typer.Argument(metavar="KEY", help="the key")]


@dataclass(frozen=True, slots=True)
class EnqueueFlags:
    """What a producer may say about its keys."""

    priority: Annotated[int, Flag("higher starts first", takes=whole(-MAX_PRIORITY, MAX_PRIORITY))] = 0
    delay: Annotated[timedelta | None, Flag("not before this time from now", takes=DURATION)] = None
    not_before: Annotated[datetime | None, Flag("not before this time", takes=MOMENT)] = None
    floor: Annotated[bool, Flag("later enqueues cannot pull the not-before forward")] = False
    payload: Annotated[str | None, Flag("text kept with the key")] = None
    payload_file: Annotated[bytes | None, Flag("the bytes of a file kept with the key", takes=CONTENT)] = None
    meta: Annotated[tuple[tuple[str, str], ...], Flag("a name and value kept with the key", takes=PAIR, many=True)] = ()

    def __post_init__(self) -> None:
        if self.delay is not None and self.not_before is not None:
            raise InvalidSettingError("--delay and --not-before: give one of them")
        if self.payload is not None and self.payload_file is not None:
            raise InvalidSettingError("--payload and --payload-file: give one of them")
        if self.floor and self.delay is None and self.not_before is None:
            raise InvalidSettingError("--floor holds a time: give it with --delay or --not-before")
        if self.delay is not None:
            _in(self.delay)

    def options(self) -> Options:
        """These flags as the queue takes them."""
        not_before = _in(self.delay) if self.delay else self.not_before
        payload = self.payload.encode(errors="surrogateescape") if self.payload is not None else self.payload_file
        return Options(self.priority, not_before, self.floor, payload, dict(self.meta))


def _in(delay: timedelta) -> datetime:
    try:
        return datetime.now(UTC) + delay
    except OverflowError:
        raise InvalidSettingError(f"--delay: it takes one that ends before the year 10000, not {delay.days}d") from None


@dataclass(frozen=True, slots=True)
class ReceiverFlags:
    """How a receiver is asked, where --queue names one."""

    calls: CallFlags
    patience: Annotated[timedelta, Flag("how long to keep trying a receiver", takes=DURATION)] = timedelta(seconds=10)


@with_flags
def enqueue(
    source: StdinFlags,
    how: EnqueueFlags,
    where: QueueFlags,
    remote: ReceiverFlags,
    output: OutputFlags,
    keys: Keys = None,
) -> None:
    """Put keys into the queue.

    Once this ends with 0, every one of them is kept. --queue may be a receiver, such as grpc://host:8090, or an SQS
    queue, such as sqs://sqs.eu-west-1.amazonaws.com/123456789012/builds.
    """
    place, batches = _sink(where, remote), given_batches(keys, source)
    with progress("enqueued", None if source.is_piped() else 0) as advance:
        stored = _enqueue(place, batches, how.options, advance)
    with printing.done():
        printing.document({"enqueued": stored}) if output.json else printing.note(f"enqueued {stored}")


def _sink(where: QueueFlags, remote: ReceiverFlags) -> Client | FullQueue | SQSSink:
    """Where keys go, to be entered."""
    url = where.url(receiver=True, sqs=True)
    if not is_sqs(url):
        return opened(where, remote)
    from workqueue.sqs.address import Address
    from workqueue.sqs.sink import SQSSink

    with naming("--queue or WORKQUEUE_URL"):
        return SQSSink(Address.parse(url))


def opened(where: QueueFlags, remote: ReceiverFlags, *, look: bool = False) -> Client | FullQueue:
    """The queue, or the receiver in front of it, to be entered; perhaps only to `look` at it."""
    url = where.url(receiver=True, look=look)
    if not is_receiver(url):
        return open_queue(url)
    from workqueue.rpc.client import Retries, connect

    with naming("--queue or WORKQUEUE_URL"):
        return connect(url, security=remote.calls.security(url), retries=Retries(patience=remote.patience))


def _enqueue(
    place: Client | FullQueue | SQSSink,
    batches: Iterator[Sequence[str]],
    options: Callable[[], Options],
    advance: Advance,
) -> int:
    """Enqueue batch by batch; returns how many keys. Stdin is read between runs of the event loop, never in one."""
    stored = 0
    with asyncio.Runner() as runner:
        queue = runner.run(place.__aenter__())
        try:
            for batch in batches:
                runner.run(queue.queue_many([(_checked(key), options()) for key in batch]))
                stored += len(batch)
                advance(len(batch))
        except WorkQueueError as error:
            error.args = (f"{error}; {stored} keys before were stored",)
            raise
        finally:
            runner.run(place.__aexit__(None, None, None))
    return stored


def _checked(key: str) -> str:
    try:
        return validate_key(key)
    except InvalidKeyError as error:
        raise InvalidKeyError(f"{key[:80]}: {error}") from error


@with_flags
def get(key: _Key, where: QueueFlags, remote: ReceiverFlags, output: OutputFlags) -> None:
    """Show where a key is and what is kept with it.

    Exits with 1 if it is nowhere. A receiver, such as grpc://host:8090, knows less than the queue itself.
    """
    state, found = asyncio.run(_get(opened(where, remote, look=True), key))
    also = _also(found)
    if output.json:
        printing.document({**printing.state(state), "also": also})
    else:
        printing.facts([*_described(state), ("also", ", ".join(also))])


async def _get(place: Client | FullQueue, key: str) -> tuple[KeyState, Found]:
    async with place as queue:
        return await queue.get(key), await queue.find(key) if offers(queue, SearchableQueue) else Found()


def _also(found: Found) -> list[str]:
    """The places of a key beside the one that its status names."""
    places = [("in-progress", found.in_progress), ("queued", found.queued), ("dead-lettered", found.dead_letter)]
    return [name for name, handle in places if handle is not None][1:]


def _described(state: KeyState) -> Iterator[tuple[str, object]]:
    yield "key", state.key
    yield "status", state.status
    yield "priority", state.priority
    yield "attempts", state.attempts
    yield "queued", state.queued_time
    yield "not before", state.not_before
    yield "floor", state.floor or None
    yield "owner", state.owner
    yield "attempt began", state.attempt_began
    yield "lease expires", state.lease_expires
    yield "last error", state.last_error
    yield "failed", state.failed_time
    yield "error", state.error
    yield "payload", None if state.payload is None else f"{len(state.payload)} bytes"
    yield "meta", " ".join(f"{name}={value}" for name, value in state.meta.items())


async def each_named(
    verb: str,
    url: str,
    keys: Sequence[str],
    act: Callable[[FullQueue, str], Awaitable[str]],
    rate: float | None = None,
) -> Report:
    """Do `act` to each of `keys` in the queue at `url`; `verb` says what was done."""
    async with open_queue(url) as queue:
        with progress(verb, len(keys)) as advance:
            return await sweep(_acts(queue, keys, act), rate, advance=advance)


async def _acts(
    queue: FullQueue, keys: Sequence[str], act: Callable[[FullQueue, str], Awaitable[str]]
) -> AsyncIterator[tuple[str, Act]]:
    for key in keys:
        yield key, partial(act, queue, key)
