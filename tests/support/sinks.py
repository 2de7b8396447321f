"""Sinks for tests of the enqueuer: what they were sent, batch by batch, and how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from workqueue.enqueuer import FailedKey
from workqueue.equipment import Equipment
from workqueue.errors import InvalidOptionsError, PartlyStoredError, StoreUnavailableError
from workqueue.options import Options

__all__ = ["Refusing", "Sink", "failures"]

Items = list[tuple[str, Options]]


class Sink:
    """Keeps each batch that it was sent. `gate` holds all of them back while it is not set; `fail` fails the next."""

    equipment = Equipment("builds")

    def __init__(self) -> None:
        self.batches: list[Items] = []
        self.stored: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: list[Exception] = []

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]

    async def queue(self, key: str, options: Options = Options()) -> None:
        await self.queue_many([(key, options)])

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        batch = list(items)
        self.batches.append(batch)
        await self.gate.wait()
        if self.fail:
            raise self.fail.pop(0)
        self.stored += [key for key, _ in batch]


class Refusing(Sink):
    """Refuses `bad` keys for good: a batch as a whole with `wholly`, else it says which they were."""

    def __init__(self, *bad: str, wholly: bool = True) -> None:
        super().__init__()
        self.bad = bad
        self.wholly = wholly
        self.passing: list[str] = []
        """Keys that fail once more for a reason that passes."""

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        batch = list(items)
        self.batches.append(batch)
        wrong = [FailedKey(key, options, InvalidOptionsError("no")) for key, options in batch if key in self.bad]
        wrong += [FailedKey(key, options, StoreUnavailableError()) for key, options in batch if key in self.passing]
        if wrong and self.wholly:
            raise wrong[0].error
        lost = {failed.key for failed in wrong}
        self.passing = [key for key in self.passing if key not in lost]
        self.stored += [key for key, _ in batch if key not in lost]
        if wrong:
            raise PartlyStoredError(wrong)


def failures(failed: Sequence[FailedKey]) -> list[tuple[str, str]]:
    return [(one.key, type(one.error).__name__) for one in failed]
