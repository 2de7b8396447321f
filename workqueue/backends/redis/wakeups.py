"""Stage 3: sleeping until a script says that there may be something to start.

A dispatcher that sleeps has registered under its own channel, and a script that makes a key startable publishes to one
such channel: so an idle queue costs next to no commands, and one key does not wake a thousand dispatchers. The messages
come over a connection of their own. While that is down nobody is registered in vain: a publisher sees that a channel
has no listener and takes the next one, and the sleeper returns, looks for itself and registers again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from redis.exceptions import NoPermissionError, ResponseError

from workqueue.backends.redis.address import Address, RedisSettings
from workqueue.backends.redis.errors import CONNECTION_ERRORS, typed_error
from workqueue.backends.redis.link import connect
from workqueue.backends.redis.scripts import pack
from workqueue.backends.redis.wire import Reply, Wire
from workqueue.errors import QueueClosedError

__all__ = ["Wakeups"]

log = logging.getLogger(__name__)


class Wakeups:
    """Listens on one channel, to one node, from the first `listen` until the queue is closed.

    `brought` receives what a wake-up brings along.
    """

    def __init__(self, settings: RedisSettings, waiter: str, brought: Callable[[bytes], None]) -> None:
        self._brought = brought
        self._settings = settings
        self._channel = settings.meta_key.removesuffix("meta") + "wake:" + waiter
        self._timeout = settings.timeout.total_seconds() / 2
        self._connecting = asyncio.Lock()
        self._wire: Wire | None = None
        self._address: Address | None = None
        self._heard = 0.0  # when, by the loop's time, the connection last gave a sign of life
        self._asked: float | None = None  # since when it is asked for one
        self._sleepers: set[asyncio.Future[None]] = set()
        self._was_woken = False
        self._is_closed = False

    async def listen(self, address: Address) -> bool:
        """Make sure that messages from `address` arrive from now on; False = they cannot, so poll."""
        async with self._connecting:  # several may ask, for one connection
            return await self._listen(address)

    async def _listen(self, address: Address) -> bool:
        if self._wire is not None and self._address == address and self._is_alive(self._wire):
            return True
        self._drop()
        try:
            self._wire = await self._subscribe(address)
        except (*CONNECTION_ERRORS, ResponseError) as error:
            level = logging.WARNING if isinstance(error, NoPermissionError) else logging.DEBUG
            log.log(level, "no wake-ups, polling instead: %s", typed_error(error, str(address)))
            return False
        self._address = address
        self._hear()
        return True

    def expect(self) -> asyncio.Future[None]:
        """What is done with the next message, or at once if one came that nobody expected; cancel it when awake."""
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers = {other for other in self._sleepers if not other.done()} | {sleeper}
        if self._was_woken:
            self._wake()
        return sleeper

    @property
    def is_expected(self) -> bool:
        """Whether somebody sleeps until a message comes."""
        return any(not sleeper.done() for sleeper in self._sleepers)

    def close(self) -> None:
        """Stop listening for good, and wake who sleeps."""
        self._is_closed = True
        self._wake()
        self._drop()

    def _is_alive(self, wire: Wire) -> bool:
        """Whether the connection still carries messages, as far as is known; a silent one is asked.

        Nothing comes over it for hours, so that a firewall may forget it, or its node be gone: without an error then.
        """
        now = asyncio.get_running_loop().time()
        if self._asked is not None:
            return now - self._asked < self._timeout
        if now - self._heard >= self._timeout:
            self._asked = now
            wire.write(pack("PING"))
        return True

    def _hear(self) -> None:
        self._heard, self._asked = asyncio.get_running_loop().time(), None

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _wake(self) -> None:
        self._was_woken = not self.is_expected
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    async def _subscribe(self, address: Address) -> Wire:
        connection = await connect(self._settings, address, self._timeout)
        try:
            await connection.send_packed_command(pack("SUBSCRIBE", self._channel), check_health=False)
            async with asyncio.timeout(self._timeout):
                await connection.read_response()
            if self._is_closed:  # meanwhile: nobody would close this connection
                raise QueueClosedError
            return Wire(connection, self._take, self._lose)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    def _take(self, message: Reply) -> None:
        self._hear()
        if isinstance(message, list) and message[0] == b"message":
            if message[2]:
                self._brought(message[2])
            self._wake()

    def _lose(self, error: Exception) -> None:
        log.debug("wake-up connection lost: %s", error)
        self._wire = None
        self._wake()  # whoever sleeps looks again, and listens anew
