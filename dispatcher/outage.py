"""The target cannot be reached: starts are held, one key at a time probes, nothing is spent.

Without it a reconciler that is down for an hour would use up the attempts of the whole backlog and dead-letter it. A
target that is down is distinguished from a key that cannot be called, or that brings its target down, by this rule:

- a call that could not be made, or was refused by somebody who may stand before the target, counts against its key only
  if the target answered another call since this one was sent, or since the last one for this key failed;
- a call that broke off may have been what broke the target. Its key is pardoned once, until it is answered, and not in
  its last attempt. From then on its attempts count, as those of a key do whose process dies.

Whatever else ends without an answer says nothing. Any answer ends the outage at once, whichever call it is for.

A call that was refused, or not made for a place of its key's own, says little of the keys that have not failed yet.
They must not be held for long: one of them probes each second, until `_CONVINCED` keys have failed. Then it is the
target.

All of this is plain state: somebody else calls, waits and logs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple, Protocol, runtime_checkable

from workqueue.clock import duration_us
from workqueue.errors import TargetUnavailableError, Trouble, WorkQueueError

__all__ = [
    "IN_A_ROW",
    "Connection",
    "Ended",
    "Outage",
    "TargetSilentError",
    "TargetUnavailableError",
    "Trouble",
    "Verdict",
    "outage_of",
]

IN_A_ROW = 5
"""After this number of failed calls without an answer between them starts are held."""

_CANDIDATES = 5
_CONVINCED = 20  # failed keys, without an answer to any other: a target that is down for hours is not asked each second
_FIRST_PROBE_US = duration_us(timedelta(seconds=1))
_LAST_PROBE_US = duration_us(timedelta(seconds=60))
_TAKEN_US = duration_us(timedelta(seconds=15))  # longer than any connection takes to be had or refused
_REMEMBERED = 10_000  # released keys; one that another dispatcher takes never comes back here to be forgotten


class TargetSilentError(WorkQueueError):
    """The target did not answer before the attempt's time was up."""


@runtime_checkable
class Connection(Protocol):
    """A callback that knows whether it is connected to its target, so that the end of an outage is noticed at once."""

    @property
    def is_connected(self) -> bool:
        """Whether a call could be sent now."""

    async def connected(self) -> None:
        """Return as soon as a call could be sent."""

    async def is_serving(self) -> bool:
        """Whether the target itself says that it serves; False also where it cannot be asked. Takes 2 s at most."""


class Verdict(NamedTuple):
    """What follows from a failed call: whether its key is released, or else the attempt counts; what to report."""

    is_released: bool
    began: bool = False
    """Whether starts are held from now on, after `IN_A_ROW` failed calls."""


class Ended(NamedTuple):
    """What is reported of an outage at its end: how long it was, and how many calls failed of it."""

    seconds: float
    calls: int


class _Released(NamedTuple):
    """A key that was handed back: how many calls had been answered by then, and whether a call for it ever broke."""

    answers: int
    broke: bool


_NEVER = _Released(sys.maxsize, broke=False)


class Outage:
    """What a process knows about one target: whether it is down, since when, and which keys were released for that.

    All times are steady microseconds.

    Args:
        connection: whether a call could be sent now, where that is known.
        lasting: whether this outlives one round. If not, no key is pardoned: it would be in each round, for ever.
        is_one: whether a call that cannot be made for one key can be made for none.
    """

    def __init__(self, connection: Connection | None = None, *, lasting: bool = True, is_one: bool = True) -> None:
        self.answers = 0
        """How many calls were answered, however. Who makes a call remembers this from before it."""

        self.error: TargetUnavailableError | None = None
        """What the last call failed with."""

        self.in_doubt = False
        """Whether a call that is answered has to be noted by `answered`, beside `answers`."""

        self._connection = connection
        self._lasting = lasting
        self._is_one = is_one
        self._in_a_row = 0
        self._released: dict[str, _Released] = {}
        self._since_us: int | None = None
        self._calls = 0
        self._probe = ""
        self._probed_us = 0
        self._delay_us = 0
        self._probe_us = 0
        self._asked_us = 0
        self._is_serving = False
        self._in_vain = 0
        self._put_off_us: int | None = None

    def is_on(self) -> bool:
        """Whether starts are held."""
        return self._since_us is not None

    def seconds(self, now_us: int) -> float:
        """For how long starts have been held."""
        return 0.0 if self._since_us is None else (now_us - self._since_us) / 1e6

    def starts(self, room: int, now_us: int) -> int:
        """How many of `room` keys to start now: all, or when a probe is due a few, of which `probe_of` takes one."""
        if self._since_us is None:
            return room
        if not self._is_due(now_us):
            return 0
        if self._may_be_its_keys:
            return min(room, _CANDIDATES + min(len(self._released), _CONVINCED))  # those that failed may be the first
        is_any_as_good = self.error is not None and self.error.trouble == "unsent"
        return min(room, 1 if is_any_as_good else _CANDIDATES)

    def probe_of(self, keys: Sequence[str], now_us: int) -> str | None:
        """Which of the started `keys` to probe with while starts are held; None: not now.

        The one that failed longest ago. A key that brings its target down each time would else be every probe.
        """
        if not keys or not self._is_due(now_us):
            return None
        order = {key: number for number, key in enumerate(self._released)}  # those that failed last are last
        return min(keys, key=lambda key: order.get(key, -1))

    def probe_in_us(self, now_us: int) -> int | None:
        """Microseconds until the next probe may start; None when starts are not held, or a probe is under way."""
        if self._since_us is None or self._probe:
            return None
        if self._connection is not None and self._is_disconnected and self._connection.is_connected:
            self._probe_soon(now_us)  # a connection after there was none is news
        return max(self._probe_us - now_us, 0)

    def wants_others(self) -> bool:
        """Whether a key that has not failed yet should probe now, though no probe is due."""
        if self._since_us is None or self._probe:
            return False
        return self._may_be_its_keys and len(self._released) < _CONVINCED

    def others_wait(self, eligible: int, now_us: int) -> None:
        """Let one of `eligible` keys probe, if more of them wait than have failed. Call it while `wants_others`."""
        if eligible > max(len(self._released), self._in_vain):
            self._in_vain = eligible  # those that failed may be all that can be started
            due_us = self._probe_us
            self._probe_soon(now_us)
            if self._probe_us < due_us and self._put_off_us is None:
                self._put_off_us = due_us

    def begins(self, key: str, now_us: int) -> None:
        """While starts are held, a call for `key` begins: the probe."""
        self._probe, self._probed_us = key, now_us
        if key not in self._released:
            self._in_vain = 0

    async def connected(self) -> None:
        """Return once the target can be connected to again; never, where that is not known or was never the trouble."""
        if self._connection is None or not self._is_disconnected or self._connection.is_connected:
            await asyncio.Event().wait()
        else:
            await self._connection.connected()

    async def ask(self, now_us: int) -> None:
        """While somebody refuses calls, ask the target itself whether it serves.

        If it does, the next call that is refused counts against its key. When it begins to, a probe is due.
        """
        if self._since_us is None or self._probe or self._connection is None or self._is_disconnected:
            return
        if self.error is not None and self.error.behind:  # it serves, or it would not have said so
            return
        if now_us - self._asked_us < _FIRST_PROBE_US:
            return
        self._asked_us = now_us
        was_serving, self._is_serving = self._is_serving, await self._connection.is_serving()
        if self._is_serving:
            self.answers += 1
            if not was_serving:
                self._probe_soon(now_us)

    def failed(self, key: str, error: TargetUnavailableError, sent: int, now_us: int, *, last: bool) -> Verdict:
        """A call for `key` failed.

        Args:
            key: what the call was for.
            error: how it failed.
            sent: `answers` when it began.
            now_us: now.
            last: whether the key is given up if this attempt counts.
        """
        before = self._released.pop(key, _NEVER)
        is_excused = self._is_excused(before, error, sent, last=last)
        if not is_excused and error.trouble != "broken":  # the target is there: it is the key
            self.put_off(key, now_us)
            return Verdict(is_released=False)
        self.in_doubt = True
        self._remember(key, _Released(self.answers, before.broke or error.trouble == "broken"))
        return Verdict(is_excused, began=self._note(key, error, now_us))

    def unanswered(self, key: str) -> None:
        """A call ended without an answer: if it was the probe, another one may start."""
        if key == self._probe:
            self._probe = ""

    def put_off(self, key: str, now_us: int) -> None:
        """Wait longer for the next probe, if this was one. Else it was under way when the target went down."""
        if key != self._probe:
            return
        self._probe = ""
        if self._put_off_us is not None:  # an early one, beside the others
            self._probe_us, self._put_off_us = self._put_off_us, None
        else:
            self._delay_us = min(self._delay_us * 2, _LAST_PROBE_US)
            self._probe_us = now_us + self._delay_us

    def answered(self, key: str, now_us: int) -> Ended | None:
        """A call for `key` was answered; returns what to report if that ends an outage."""
        self._in_a_row = 0
        self._released.pop(key, None)
        self.in_doubt = bool(self._released)
        return None if self._since_us is None else self._end(now_us)

    def taken(self, now_us: int) -> Ended | None:
        """Whether the target has surely taken the probe, though it is not answered yet; returns what to report then.

        A call may take an hour, and starts would be held as long. But a probe that may be what brings the target down
        runs alone until it is answered, and one that somebody else may still refuse proves nothing.
        """
        if not self._probe or self.error is None or self.error.trouble != "unsent":
            return None
        if self._connection is not None and not self._connection.is_connected:
            return None
        if now_us - self._probed_us < _TAKEN_US or self._released.get(self._probe, _NEVER).broke:
            return None
        self._in_a_row = 0
        return self._end(now_us)

    def _end(self, now_us: int) -> Ended:
        ended = Ended(self.seconds(now_us), self._calls)
        self._since_us, self._probe, self._in_vain, self._put_off_us = None, "", 0, None
        return ended

    def _is_excused(self, before: _Released, error: TargetUnavailableError, sent: int, *, last: bool) -> bool:
        if error.trouble == "broken":
            return self._lasting and not last and not before.broke
        return self.answers <= before.answers and (error.trouble == "unsent" or self.answers <= sent)

    def _note(self, key: str, error: TargetUnavailableError, now_us: int) -> bool:
        """Count a failed call; returns whether an outage began with it."""
        self.error = error
        self._in_a_row += 1
        self._calls += 1
        if self._since_us is not None:
            self.put_off(key, now_us)
            return False
        self._calls = self._in_a_row
        if self._in_a_row < IN_A_ROW:
            return False
        self._since_us = self._probed_us = now_us
        self._is_serving = False
        self._delay_us = _FIRST_PROBE_US
        self._probe_us = now_us + self._delay_us
        return True

    def _probe_soon(self, now_us: int) -> None:
        """At once, but not more than once a second."""
        self._probe_us = min(self._probe_us, max(now_us, self._probed_us + _FIRST_PROBE_US))

    def _remember(self, key: str, released: _Released) -> None:
        self._released[key] = released
        if len(self._released) > _REMEMBERED:
            del self._released[next(iter(self._released))]

    def _is_due(self, now_us: int) -> bool:
        return self.probe_in_us(now_us) == 0

    @property
    def _may_be_its_keys(self) -> bool:
        """Whether the keys that failed may be the trouble: others, at the same target, may have none."""
        error = self.error
        if error is None or error.trouble == "broken":
            return False
        return error.behind or error.trouble == "refused" or not self._is_one

    @property
    def _is_disconnected(self) -> bool:
        return self.error is not None and self.error.trouble != "refused" and not self.error.behind


def outage_of(callback: object, *, lasting: bool = True) -> Outage:
    """The outage of what `callback` calls: its own, shared by all rounds of the process, or else a new one."""
    own = getattr(callback, "outage", None)
    return own if isinstance(own, Outage) else Outage(lasting=lasting, is_one=False)
