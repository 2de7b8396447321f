"""Every backend that the suites run on. Adding one is one line in `BACKENDS`; its servers start once a test session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from workqueue.conformance import Need, Target, URLTarget


@dataclass(frozen=True)
class Backend:
    """A backend under test: how to open a target on it, and what it honestly lacks."""

    name: str
    opened: Callable[[], AbstractContextManager[Target]]
    lacks: frozenset[Need] = frozenset()


@contextmanager
def memory() -> Iterator[Target]:
    yield URLTarget("memory://")


BACKENDS = [
    Backend("memory", memory, frozenset({Need.DURABLE})),
]
