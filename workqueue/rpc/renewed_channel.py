"""A gRPC channel whose certificates are renewed: gRPC fixes them for a channel's life, so this changes channels."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import grpc

from workqueue.access.files import Followed

__all__ = ["RenewedChannel"]

_Open = Callable[[grpc.ChannelCredentials], grpc.aio.Channel]


class RenewedChannel(grpc.aio.Channel):
    """A channel in front of another one, which is replaced when credentials have changed. Calls end where they began.

    Args:
        credentials: followed, and looked at by each call.
        open_channel: makes a channel of them.
    """

    def __init__(self, credentials: Followed[grpc.ChannelCredentials], open_channel: _Open) -> None:
        self._credentials = credentials
        self._open = open_channel
        self._used = credentials.current()
        self._channel = open_channel(self._used)
        self._users: Counter[grpc.aio.Channel] = Counter({self._channel: 0})
        self._closing: set[asyncio.Task[None]] = set()

    def _current(self) -> grpc.aio.Channel:
        credentials = self._credentials.current()
        if credentials is not self._used:
            before, self._used = self._channel, credentials
            self._channel = self._open(credentials)
            self._users[self._channel] = 0
            self._close_if_unused(before)
        return self._channel

    def _enter(self) -> grpc.aio.Channel:
        channel = self._current()
        self._users[channel] += 1
        return channel

    def _leave(self, channel: grpc.aio.Channel) -> None:
        self._users[channel] -= 1
        self._close_if_unused(channel)

    def _close_if_unused(self, channel: grpc.aio.Channel) -> None:
        if channel is not self._channel and not self._users[channel]:
            del self._users[channel]
            closing = asyncio.ensure_future(channel.close(None))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._counted(lambda channel: channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._counted(lambda channel: channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._counted(lambda channel: channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._counted(lambda channel: channel.stream_stream(*args, **kwargs))

    def _counted(self, method_of: Callable[[grpc.aio.Channel], Any]) -> Any:
        """A method of whatever channel is in use. As long as a call of it is under way, its channel stays open."""
        bound: dict[grpc.aio.Channel, Any] = {}

        def call(*requests: Any, **options: Any) -> Any:
            channel = self._enter()
            if channel not in bound:
                bound.clear()
                bound[channel] = method_of(channel)
            begun = bound[channel](*requests, **options)
            begun.add_done_callback(lambda _: self._leave(channel))
            return begun

        return call

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        channel = self._enter()
        try:
            await channel.wait_for_state_change(last_observed_state)
        finally:
            self._leave(channel)

    async def channel_ready(self) -> None:
        channel = self._enter()
        try:
            await channel.channel_ready()
        finally:
            self._leave(channel)

    async def close(self, grace: float | None = None) -> None:
        await asyncio.gather(*(channel.close(grace) for channel in self._users), *self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
