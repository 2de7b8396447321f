"""Stage 5: a callback that calls a reconciler over gRPC, in Python or Go, and reads its answer as an outcome."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Self

from workqueue.extras import importing

with importing("grpc", "calling a reconciler over gRPC"):
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

from dispatcher.callback import Attempt
from dispatcher.outage import Outage, TargetSilentError, TargetUnavailableError, Trouble
from workqueue.access.security import ClientSecurity
from workqueue.errors import InfrastructureError, InvalidOptionsError, WorkQueueError
from workqueue.outcomes import Outcome
from workqueue.rpc.channel import Address, open_channel
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.statuses import from_reconciler, marked
from workqueue.rpc.streamed_calls import StreamedCalls
from workqueue.rpc.stub import reading, stub_on
from workqueue.rpc.wire import outcome_of
from workqueue.safe_text import describe

__all__ = ["ServiceCallback", "TargetError", "service_callback"]

_HEALTH_SECONDS = 2.0
_NOTICED_SECONDS = 0.1
_READY = grpc.ChannelConnectivity.READY
_LEAST_SECONDS, _MOST_SECONDS = 0.001, 31_536_000.0  # gRPC takes a deadline centuries ahead for one that has passed
_TO_CONNECT = frozenset({grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING})


class TargetError(WorkQueueError):
    """The reconciler answered with an error; the message is its status and text."""


def service_callback(target: str | grpc.aio.Channel, *, security: ClientSecurity | None = None) -> ServiceCallback:
    """A callback that calls the reconciler at `target` for each key, for as long as the attempt may run.

    Args:
        target: `grpc://host:port`, `grpcs://host:port` (TLS), or a channel of your own, which stays yours to close.
        security: whom to trust and what to show, for an address.

    Raises:
        InvalidSettingError: `target` is no such address, or `security` does not fit it.
    """
    if not isinstance(target, str | grpc.aio.Channel):
        raise InvalidOptionsError(f"a target is an address or a channel, not a {type(target).__name__}")
    return ServiceCallback(target, security or ClientSecurity())


class ServiceCallback:
    """What `service_callback` returns. As an async context manager it closes the channel that it opened."""

    def __init__(self, target: str | grpc.aio.Channel, security: ClientSecurity) -> None:
        self._address = Address.parse(target) if isinstance(target, str) else None
        self._security = security
        self._channel = None if isinstance(target, str) else target
        self._calls: StreamedCalls | None = None
        self.outage = Outage(self)
        """What is known of the target, by all rounds and loops that call it through this."""

    async def __call__(self, key: str, attempt: Attempt) -> Outcome | None:
        calls, channel = self._opened()
        reached = channel.get_state() is _READY or await _connect(channel)
        request = pb.ProcessRequest(
            key=key,
            priority=attempt.priority,
            payload=attempt.payload or b"",
            attempts=attempt.attempts,
            meta=attempt.meta,
        )
        seconds = min(max(attempt.remaining().total_seconds(), _LEAST_SECONDS), _MOST_SECONDS)
        try:
            answer = await calls.process(request, seconds)
        except grpc.aio.AioRpcError as error:
            failure = _failure(error)
            if failure is None:
                failure = TargetUnavailableError(describe(error), await _trouble(channel, reached=reached))
            raise failure from None
        if answer is None:  # what gRPC makes of an answer that cannot be read
            raise TargetError("this is no reconciler: its answer cannot be read")
        return outcome_of(answer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel, if it is ours; calls under way are cancelled."""
        if self._calls is not None:
            calls, self._calls = self._calls, None
            await calls.close()
        if self._address is not None and self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close(None)

    @property
    def is_connected(self) -> bool:
        """Whether a call could be sent now."""
        return self._channel is not None and self._channel.get_state() is _READY

    async def connected(self) -> None:
        """Return as soon as a call could be sent."""
        _, channel = self._opened()
        while (state := channel.get_state(try_to_connect=True)) is not _READY:
            await channel.wait_for_state_change(state)

    async def is_serving(self) -> bool:
        """Whether the reconciler's health service says so; those that have none are taken not to be."""
        _, channel = self._opened()
        try:
            health: Any = HealthStub(reading(channel))  # its stubs lack the methods
            answer = await health.Check(HealthCheckRequest(), timeout=_HEALTH_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return answer is not None and bool(answer.status == HealthCheckResponse.SERVING)

    def _opened(self) -> tuple[StreamedCalls, grpc.aio.Channel]:
        """How to call, and the channel, which is opened at the first call, in the event loop that uses it."""
        if self._channel is None and self._address is not None:
            self._channel = open_channel(self._address, self._security)
        assert self._channel is not None
        if self._calls is None:
            self._calls = StreamedCalls(stub_on(self._channel))
        return self._calls, self._channel


async def _connect(channel: grpc.aio.Channel) -> bool:
    """Wait until it is known whether a connection can be had; returns whether one is.

    So a call that fails later is known to have been sent or not; its error says so only in its text.
    """
    while (state := channel.get_state(try_to_connect=True)) in _TO_CONNECT:
        await channel.wait_for_state_change(state)
    return state is _READY


def _failure(error: grpc.aio.AioRpcError) -> Exception | None:
    """What an answered call means; None: it may not have been answered."""
    raised = marked(error)
    if raised is not None:
        return raised
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TargetSilentError(describe(error))
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return TargetError(describe(error))
    return InfrastructureError(describe(error)) if from_reconciler(error) else None


async def _trouble(channel: grpc.aio.Channel, *, reached: bool) -> Trouble:
    """How a call failed whose UNAVAILABLE has no mark.

    Over a connection that stays up somebody answered: the target, or a proxy before it. That one broke shows in the
    channel's state a moment after it shows in its calls.
    """
    if not reached:
        return "unsent"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_NOTICED_SECONDS):
            await channel.wait_for_state_change(_READY)
            return "broken"
    return "refused"
