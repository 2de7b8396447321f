"""Stage 1: a receiver somewhere else, used as the queue behind it: enqueue and look up, with retries."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc

from workqueue.access.security import ClientSecurity
from workqueue.clock import Clock, SystemClock, duration_us
from workqueue.errors import (
    InvalidKeyError,
    QueueClosedError,
    StoreUnavailableError,
    StoreUnusableError,
    WorkQueueError,
)
from workqueue.interface import KeyState
from workqueue.key import check_key_text, validate_key
from workqueue.options import Options, check_time, check_type, checked_items
from workqueue.rpc.batches import Batches, next_batch
from workqueue.rpc.channel import Address, Probe, open_channel
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.statuses import error_of
from workqueue.rpc.streamed_calls import StreamedCalls
from workqueue.rpc.stub import stub_on
from workqueue.rpc.wire import batch_of, key_state_of, refuse_floor, request_of

if TYPE_CHECKING:
    from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceAsyncStub

__all__ = ["Client", "Retries", "connect"]

_T = TypeVar("_T")

_IN_FLIGHT = 128  # calls for one key each
_BATCHES = 4  # in flight: one is packed here and one stored there, while others are on their way


@dataclass(frozen=True, slots=True)
class Retries:
    """How long a call is tried.

    Args:
        patience: no try begins after this long; zero means one try.
        attempt: how long one try may take.
        pause: between the first two tries; doubles up to `longest_pause`, and each is cut by up to half at random.
        longest_pause: see `pause`.

    Raises:
        InvalidSettingError: one is no timedelta or less than zero; or zero, which only `patience` may be.
    """

    patience: timedelta = timedelta(seconds=30)
    attempt: timedelta = timedelta(seconds=10)
    pause: timedelta = timedelta(milliseconds=100)
    longest_pause: timedelta = timedelta(seconds=2)

    def __post_init__(self) -> None:
        check_time("patience", self.patience)
        for name in ("attempt", "pause", "longest_pause"):
            check_time(name, getattr(self, name), allow_zero=False)

    def pauses(self, rand: Callable[[], float] = random.random) -> Iterator[float]:
        """Seconds to wait between tries, without end."""
        pause = self.pause
        while True:
            yield pause.total_seconds() * (1 - rand() / 2)
            pause = min(pause * 2, self.longest_pause)


def connect(
    address: str,
    *,
    security: ClientSecurity | None = None,
    retries: Retries | None = None,
    clock: Clock | None = None,
) -> Client:
    """The receiver at `address`, as an async context manager; nothing is connected before the first call.

    Args:
        address: `grpc://host:port`, or with TLS `grpcs://host:port` or `https://host`.
        security: whom to trust, and what to show.
        retries: how long calls are tried.
        clock: what delays count from.

    Raises:
        InvalidSettingError: the address is none, or `security` does not fit it.
        InvalidOptionsError: an argument is of another type.
    """
    parsed = Address.parse(address)
    chosen = ClientSecurity() if security is None else security
    tries = Retries() if retries is None else retries
    check_type("security", chosen, ClientSecurity, "ClientSecurity(ca=..., token=...)")
    check_type("retries", tries, Retries, "Retries(patience=...)")
    chosen.check_address(parsed.host, tls=parsed.tls)
    return Client(parsed, chosen, tries, clock or SystemClock())


class Client:
    """A receiver, wherever a producer takes a queue (see `connect`)."""

    def __init__(self, address: Address, security: ClientSecurity, retries: Retries, clock: Clock) -> None:
        self.address = address
        self.clock = clock
        self._security = security
        self._retries = retries
        self._probe = Probe(address, security, clock)
        self._channel: grpc.aio.Channel | None = None
        self._stub: WorkqueueServiceAsyncStub
        self._calls: StreamedCalls
        self._batches: Batches

    async def __aenter__(self) -> Self:
        self._channel = open_channel(self.address, self._security)
        self._stub = stub_on(self._channel)
        self._calls = StreamedCalls(self._stub)
        self._batches = Batches(self._stub)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await self._calls.close()
            await channel.close(None)

    async def queue(self, key: str, options: Options = Options()) -> None:
        """Have `key` stored (see `WorkQueue.queue`).

        Raises:
            InvalidKeyError, InvalidOptionsError: nothing was stored.
            UnsupportedError: `options` ask for a floor, which requests cannot carry.
            PayloadTooLargeError: the receiver takes no request that large.
            StoreUnavailableError: every try failed, or its answer was lost; enqueueing again is safe.
            StoreUnusableError: the receiver refuses this client, or there is none at the address.
        """
        validate_key(key)
        check_type("a key", options, Options, "Options(priority=1, ...)")
        size = len(options.payload or b"")
        await self._persist(lambda seconds: self._process(key, options, seconds), size)

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        """Have every key stored, in batches (see `BulkQueue.queue_many`); all are validated first.

        The keys of a batch that fails, and those for a receiver that takes no batches, are stored 128 at a time, each
        as `queue` does it.

        Raises:
            As `queue`: the first error ends it, and which of the others were stored is unknown.
        """
        checked = [(key, refuse_floor(options)) for key, options in checked_items(items, sys.maxsize)]
        self._check_open()
        waiting = iter(checked)
        await _at_once(_BATCHES, lambda: self._queue_batches(waiting))
        await self._queue_each(list(waiting), _IN_FLIGHT)

    async def _queue_batches(self, waiting: Iterator[tuple[str, Options]]) -> None:
        """Store what is waiting, as long as the receiver takes batches."""
        while self._batches.are_taken and (batch := next_batch(waiting)):
            if len(batch) == 1 or not await self._queue_batch(batch):
                await self._queue_each(batch, _IN_FLIGHT // _BATCHES)

    async def _queue_batch(self, batch: Sequence[tuple[str, Options]]) -> bool:
        """Whether all is stored by one try. If not, a call for each key finds out whose fault it is."""
        give_up_us = self._give_up_us()
        try:
            await self._try(lambda seconds: self._batches.queue(batch_of(batch, self.clock.wall_us()), seconds))
        except StoreUnavailableError:
            if self.clock.steady_us() >= give_up_us:
                raise
            return False
        except WorkQueueError:
            return False
        return True

    async def _queue_each(self, items: Sequence[tuple[str, Options]], in_flight: int) -> None:
        waiting = iter(items)

        async def queue_in_turn() -> None:
            for key, options in waiting:
                await self.queue(key, options)

        await _at_once(min(len(items), in_flight), queue_in_turn)

    async def get(self, key: str) -> KeyState:
        """The state of one key (see `WorkQueue.get`); payload, meta, owner and error stay with the receiver.

        Raises:
            KeyNotFoundError: it is nowhere.
            InvalidKeyError: it is no text that a request can carry.
            StoreUnavailableError, StoreUnusableError: as `queue`.
        """
        request = _look_up(key)
        return key_state_of(await self._persist(lambda seconds: self._stub.GetKeyState(request, timeout=seconds)))

    def _process(self, key: str, options: Options, seconds: float) -> Awaitable[pb.ProcessResponse | None]:
        # Made anew for every try: a delay counts from when the receiver gets it.
        return self._calls.process(request_of(key, options, self.clock.wall_us()), seconds)

    async def _persist(self, ask: Callable[[float], Awaitable[_T | None]], payload_bytes: int = 0) -> _T:
        """Ask until there is an answer, the refusal is final, or patience ends."""
        give_up_us = self._give_up_us()
        for pause in self._retries.pauses():
            try:
                return await self._try(ask, payload_bytes)
            except StoreUnavailableError:
                if self.clock.steady_us() + pause * 1e6 >= give_up_us:
                    raise
            await self.clock.sleep(pause)
        raise AssertionError("pauses() has no end")

    def _give_up_us(self) -> int:
        return self.clock.steady_us() + duration_us(self._retries.patience)

    async def _try(self, ask: Callable[[float], Awaitable[_T | None]], payload_bytes: int = 0) -> _T:
        """Ask once."""
        self._check_open()
        try:
            answer = await ask(self._retries.attempt.total_seconds())
        except grpc.aio.AioRpcError as error:
            raise await self._explain(error, payload_bytes) from None
        if answer is None:  # what gRPC makes of an answer that cannot be read
            raise StoreUnusableError(f"{self.address} is no receiver: its answer cannot be read")
        return answer

    def _check_open(self) -> None:
        if self._channel is None:
            raise QueueClosedError("this client is not open: use it inside 'async with connect(...) as client'")

    async def _explain(self, error: grpc.aio.AioRpcError, payload_bytes: int) -> WorkQueueError:
        if error.code() is grpc.StatusCode.UNAVAILABLE:  # gRPC says why only in its text, and there often wrongly
            found = await self._probe.find()
            if found.reason:
                kind = StoreUnusableError if found.permanent else StoreUnavailableError
                return kind(f"cannot connect to {self.address}: {found.reason}")
        return error_of(str(self.address), error, payload_bytes)


async def _at_once(count: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do `work` in several tasks; the first error ends all and is raised itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(work())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed


def _look_up(key: str) -> pb.GetKeyStateRequest:
    try:
        return pb.GetKeyStateRequest(key=check_key_text(key))
    except UnicodeEncodeError:  # it stands for bytes that are not UTF-8, which only a store can have
        raise InvalidKeyError("the key is not valid UTF-8; ask next to the store") from None
