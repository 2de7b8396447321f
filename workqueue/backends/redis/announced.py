"""A lease request of which Redis knows before it is sent: a wake-up brings its answer along.

A dispatcher that sleeps has announced what it will ask for when it is awake. Who stores a lone key meanwhile starts it
by that request, and keeps the answer as if it had been asked. A wake-up that is lost loses nothing: the request is sent
unless its answer has come. So on an idle queue a key takes one exchange with Redis from enqueue to start, where it took
two.
"""

from __future__ import annotations

import struct

from workqueue.backends.redis.scripts import Argument
from workqueue.backends.redis.wire import Reply

__all__ = ["NOTHING_ANNOUNCED", "Announced"]

NOTHING_ANNOUNCED: tuple[Argument, ...] = ("",)
"""What wait.lua is given by who does not come back, or shares his name with somebody who sleeps already."""

_MESSAGE = struct.Struct(">qqqH")  # number of the request, steady and wall time of the start, length of the key


class Announced:
    """One such request, and its answer if a wake-up brought it.

    Args:
        asker: whose answer is kept, and the number of the request.
        prefix: of the tokens.
        concurrency: the most leases that it leaves.
        sent_us: when it was announced.
    """

    __slots__ = ("asker", "concurrency", "prefix", "reply", "sent_us", "started_us", "stored_us")

    def __init__(self, asker: tuple[str, int], prefix: str, concurrency: int, sent_us: int) -> None:
        self.asker = asker
        self.prefix = prefix
        self.concurrency = concurrency
        self.sent_us = sent_us
        self.stored_us: int | None = None
        """When Redis knew of it, by the clock of Redis."""
        self.reply: Reply = None
        self.started_us = 0

    def terms(self, owner: str, lease_us: int) -> tuple[Argument, ...]:
        """What wait.lua is given of it; `owner` and `lease_us` are those of the starts."""
        return self.asker[1], self.prefix, owner, lease_us

    def take(self, message: bytes) -> None:
        """Take the answer from a wake-up, if it is one to this request."""
        if len(message) < _MESSAGE.size:
            return
        number, steady_us, wall_us, size = _MESSAGE.unpack_from(message)
        if number == self.asker[1]:
            key, record = message[_MESSAGE.size :][:size], message[_MESSAGE.size + size :]
            self.reply, self.started_us = [0, wall_us, [], [key, record], [], []], steady_us

    def answered_us(self, now_us: int) -> int:
        """When the key was started at the earliest, by our clock: its lease must not seem to last longer than it does.

        The request was not sent at that time. But since it was announced, as much time has passed as the clock of Redis
        says; without that, it is as old as the announcement, which is on the safe side.
        """
        passed_us = 0 if self.stored_us is None else max(self.started_us - self.stored_us, 0)
        return min(self.sent_us + passed_us, now_us)
