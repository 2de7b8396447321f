"""Stage 1: every number that a background enqueuer takes, with its default and its range."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypedDict

from workqueue.errors import InvalidSettingError
from workqueue.options import check_time

__all__ = ["EnqueuerArgs", "EnqueuerSettings"]


class EnqueuerArgs(TypedDict, total=False):
    """The fields of `EnqueuerSettings` as keyword arguments of `BackgroundEnqueuer`."""

    buffer: int
    batch: int
    linger: timedelta
    in_flight: int
    patience: timedelta
    drain_timeout: timedelta


@dataclass(frozen=True, slots=True)
class EnqueuerSettings:
    """How keys are gathered and sent.

    Args:
        buffer: at most this many distinct keys wait to be sent (>= 1); `put` waits for room.
        batch: at most this many keys go in one call (>= 1); a full batch goes at once.
        linger: a batch that is not full goes this long after its first key came (>= 0).
        in_flight: at most this many batches are on their way at a time (>= 1).
        patience: how long a batch is tried while the store fails (>= 0); zero means once.
        drain_timeout: how long `close` waits for what is still to be sent (>= 0).

    Raises:
        InvalidSettingError: a value is out of range; the message names the setting.
    """

    buffer: int = 1000
    batch: int = 100
    linger: timedelta = timedelta(milliseconds=50)
    in_flight: int = 8
    patience: timedelta = timedelta(seconds=30)
    drain_timeout: timedelta = timedelta(seconds=20)

    def __post_init__(self) -> None:
        for name in ("buffer", "batch", "in_flight"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidSettingError(f"{name} is a whole number of 1 or more, not {value!r}")
        for name in ("linger", "patience", "drain_timeout"):
            check_time(name, getattr(self, name))
