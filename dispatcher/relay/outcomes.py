"""What became of requests that were delivered: for who repeats an `Idempotency-Key`, and for who asks.

An outcome is a key in a queue beside the requests (`relay.outcomes` beside `relay`), under the id of its request. Its
not-before is when it is to be forgotten; `forgetting` completes it then, so it is gone. That works on every backend,
and none of them knows of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass

from workqueue.clock import from_us
from workqueue.errors import KeyNotFoundError
from workqueue.fallbacks import FullQueue
from workqueue.interface import KeyStatus
from workqueue.options import Options

__all__ = ["OUTCOME_BYTES", "Outcome", "Outcomes"]

OUTCOME_BYTES = 8 * 1024
"""What the payload of an outcome may have beyond the request that is kept with it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a delivered request ended.

    Args:
        target, method, path: of the request; without its query.
        status: what the target answered.
        tries: how often it was sent.
        received_us, delivered_us: when, in wall microseconds.
        until_us: when it is to be forgotten.
        fingerprint: of the request.
    """

    target: str
    method: str
    path: str
    status: int
    tries: int
    received_us: int
    delivered_us: int
    until_us: int
    fingerprint: str


class Outcomes:
    """The outcomes in `queue`, which is theirs alone."""

    def __init__(self, queue: FullQueue) -> None:
        self._queue = queue
        self._clock = queue.equipment.clock

    async def keep(self, id: str, outcome: Outcome, request: bytes = b"") -> None:  # noqa: A002 - what it is called
        """Keep `outcome` until its time, with the payload of its request if that is given.

        Raises:
            StoreError: unknown whether it is kept; keeping it again is safe.
        """
        payload = json.dumps(asdict(outcome), ensure_ascii=False).encode() + b"\n" + request
        until = from_us(outcome.until_us)
        await self._queue.queue(id, Options(not_before=until, not_before_floor=True, payload=payload))

    async def read(self, id: str) -> Outcome | None:  # noqa: A002
        """The outcome of the request `id`; None if there is none, or its time is over.

        Raises:
            StoreError: the store failed.
        """
        payload = await self._payload(id)
        outcome = _read(payload) if payload is not None else None
        return outcome if outcome is not None and outcome.until_us > self._clock.wall_us() else None

    async def request(self, id: str) -> bytes | None:  # noqa: A002
        """The payload of the request `id`, where it is kept with its outcome.

        Raises:
            StoreError: the store failed.
        """
        payload = await self._payload(id)
        return (payload or b"").partition(b"\n")[2] or None

    async def _payload(self, id_: str) -> bytes | None:
        try:
            state = await self._queue.get(id_)
        except KeyNotFoundError:
            return None
        return state.payload if state.status in (KeyStatus.QUEUED, KeyStatus.IN_PROGRESS) else None

    async def listing(self, limit: int) -> Sequence[tuple[str, Outcome]]:
        """The outcomes that are forgotten next, at most `limit`.

        Raises:
            StoreError: the store failed.
        """
        read = [(key.key, _read(key.payload or b"")) for key in await self._queue.delayed(limit)]
        return [(id_, outcome) for id_, outcome in read if outcome is not None]


def _read(payload: bytes) -> Outcome | None:
    """The outcome in a payload; None if another release wrote it, which is then as if it had never been."""
    try:
        outcome = Outcome(**json.loads(payload.partition(b"\n")[0]))
    except (ValueError, TypeError, RecursionError):
        return None
    wanted = (str, str, str, int, int, int, int, int, str)
    return outcome if tuple(type(value) for value in astuple(outcome)) == wanted else None
