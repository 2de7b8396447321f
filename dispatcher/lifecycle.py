"""Stage 7: lifecycle events: one CloudEvent for every change of a key's state, beside the error events, for who asks.

Who does not ask pays nothing but a look at None for each attempt. They have a waiting room of their own: a flood of
them costs no error event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol
from uuid import uuid4

from dispatcher.broker import FLUSH_TIMEOUT, Manner, cloud_event_time
from dispatcher.error_events import CloudEventErrors, ErrorEvent, ErrorEvents
from workqueue.errors import InvalidSettingError
from workqueue.metrics import EventResult, SettleOutcome

__all__ = ["LIFECYCLE_TYPE", "CloudEventLifecycle", "LifecycleEvents", "State", "StateChange", "asked_for", "state_of"]

LIFECYCLE_TYPE = "lifecycle.workqueue.v1"

State = Literal[
    "started", "completed", "requeued", "retried", "dead-lettered", "expired", "dropped", "released", "recovered"
]
"""What a key has come to. `started`: its attempt began; `recovered`: its process died, and it is queued again. The
others are outcomes of attempts (see `SettleOutcome`); `lost` and `unsettled` change nothing, and have no event.
"""

# Lost ones are logged for who debugs: there may be thousands a second, and they are counted.
_MANNER = Manner("lifecycle event", LIFECYCLE_TYPE, "state", room=10_000, lost=logging.DEBUG)


@dataclass(frozen=True, slots=True)
class StateChange:
    """One change of a key's state, as it is sent.

    Args:
        key: the key.
        state: what it has come to.
        attempts: how many attempts it has had, this one included.
        occurred: when.
        error: of an attempt that failed.
        delay: until it may start again.
        id: of the event.
    """

    key: str
    state: State
    attempts: int
    occurred: datetime
    error: str = ""
    delay: timedelta | None = None
    id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def what(self) -> str:
        """The state."""
        return self.state

    def details(self) -> Mapping[str, object]:
        """What its JSON data says beside what all events say."""
        details: dict[str, object] = {}
        if self.error:
            details["error"] = self.error
        if self.delay is not None:
            details["notBefore"] = cloud_event_time(self.occurred + self.delay)
        return details


class LifecycleEvents(Protocol):
    """Where a dispatcher sends state changes: the `lifecycle` of its sink of error events, if that has one.

    `changes` is counted by the sender; a dispatcher's metrics show it.
    """

    @property
    def changes(self) -> dict[EventResult, int]: ...

    def changed(self, change: StateChange) -> None:
        """Take a change to be sent in the background; never waits and never raises."""


def asked_for(errors: ErrorEvents | None) -> LifecycleEvents | None:
    """Where state changes go beside error events; None = nobody asks for them."""
    return getattr(errors, "lifecycle", None)


class CloudEventLifecycle:
    """Sends every change of a key's state to the broker of `errors`, and passes error events on to it.

        errors = CloudEventLifecycle(CloudEventErrors(url, "builds"))

    Args:
        errors: sends error events; state changes go to the same broker, in the same way.

    Raises:
        InvalidSettingError: `errors` has no URL.
    """

    def __init__(self, errors: CloudEventErrors) -> None:
        if errors.broker is None:
            raise InvalidSettingError("lifecycle events go where error events go, and there is no URL of a broker")
        self._errors = errors
        self._broker = errors.broker.beside(_MANNER)

    @property
    def lifecycle(self) -> LifecycleEvents:
        """This, which sends both."""
        return self

    @property
    def results(self) -> Mapping[EventResult, int]:
        """What became of error events."""
        return self._errors.results

    @property
    def changes(self) -> dict[EventResult, int]:
        """What became of state changes."""
        return self._broker.results

    def send(self, event: ErrorEvent) -> None:
        """Take an error event (see `ErrorEvents.send`)."""
        self._errors.send(event)

    def changed(self, change: StateChange) -> None:
        """Take a change (see `LifecycleEvents.changed`)."""
        self._broker.send(change)

    async def flush(self, timeout: timedelta = FLUSH_TIMEOUT) -> None:
        """Return once everything taken is sent or lost, at the latest after `timeout`."""
        await asyncio.gather(self._errors.flush(timeout), self._broker.flush(timeout))

    async def give_up(self) -> None:
        """Drop what is not sent yet."""
        await asyncio.gather(self._errors.give_up(), self._broker.give_up())


def state_of(outcome: SettleOutcome) -> State | None:
    """The state that an outcome is; None if it changed nothing."""
    return None if outcome == "lost" or outcome == "unsettled" else outcome
