"""What a scenario is: one sentence about how queues behave, what it needs of a backend, and the check itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from workqueue.conformance.case import Case

__all__ = ["Check", "Need", "Scenario", "scenario", "scenarios"]

T = TypeVar("T")
Check = Callable[[Case], Awaitable[None]]


class Need(Enum):
    """What not every backend has; a scenario that needs what is missing is not applicable."""

    CLOCK = "a target whose queues follow a FakeClock"
    EXACT = "a queue that promises an exact limit (LeasingQueue with exact = True)"
    BULK = "the optional BulkQueue"
    COMPLETE = "the optional CompletingQueue"
    PIPELINE = "the optional PipelinedQueue"
    COUNTS = "the optional CountingQueue"
    SEARCH = "the optional SearchableQueue"
    WAIT = "the optional WaitingQueue"
    WAKE = "a store that wakes waiting processes when others store (its equipment has no `wakes=False`)"
    CONFIGURE = "the optional ConfigurableQueue"
    DURABLE = "a store that outlives the process"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One sentence about behaviour. `check(case)` returns when it holds, and raises AssertionError when it does not."""

    subject: str
    sentence: str
    needs: frozenset[Need]
    check: Check

    @property
    def name(self) -> str:
        """`subject: sentence`, unique in the suite."""
        return f"{self.subject}: {self.sentence}"


def scenario(*needs: Need) -> Callable[[Check], Scenario]:
    """Make a scenario of a function whose name is a sentence."""

    def make(check: Check) -> Scenario:
        return Scenario(_subject(check), _sentence(check), frozenset(needs), check)

    return make


def scenarios(
    table: Mapping[str, T], *needs: Need
) -> Callable[[Callable[[Case, T], Awaitable[None]]], tuple[Scenario, ...]]:
    """Make a scenario of each row of `table`: the row's name goes in brackets behind the sentence."""

    def make(check: Callable[[Case, T], Awaitable[None]]) -> tuple[Scenario, ...]:
        def bound(row: T) -> Check:
            return lambda case: check(case, row)

        return tuple(
            Scenario(_subject(check), f"{_sentence(check)} [{name}]", frozenset(needs), bound(row))
            for name, row in table.items()
        )

    return make


def _subject(check: Callable[..., object]) -> str:
    return check.__module__.rpartition(".")[2].replace("_", " ")


def _sentence(check: Callable[..., object]) -> str:
    return check.__name__.replace("_", " ")
