"""What a relay counts, as plain numbers: a series for each of the first hundred targets, and one for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from workqueue.telemetry.samples import Sample

__all__ = ["CallResult", "Received", "RelayMetrics"]

Received = Literal["stored", "repeated", "refused", "unavailable"]
"""What became of a request that came in. `repeated`: it is known by its `Idempotency-Key`. `refused`: it can never be
relayed as it is. `unavailable`: the store is down or full."""

CallResult = Literal["delivered", "failed", "refused", "unreachable"]
"""What came of a call. `failed`: the target answered, and the request is tried again; `refused`: it is given up."""

_MOST_TARGETS = 100
_OTHER = "other"


class RelayMetrics:
    """Counts for the queue `name`.

    Args:
        name: the queue's.
        down: the targets that are down, and for how many seconds.
    """

    def __init__(self, name: str, down: Callable[[], Mapping[str, float]] = dict) -> None:
        self.name = name
        self.down = down
        self.received: Counter[Received] = Counter()
        self._calls: Counter[tuple[str, CallResult]] = Counter()
        self._put_off: Counter[str] = Counter()
        self._targets: set[str] = set()

    def called(self, target: str, result: CallResult) -> None:
        """A call to `target` is over."""
        self._calls[self._label(target), result] += 1

    def put_off(self, target: str) -> None:
        """A request to `target` had no turn."""
        self._put_off[self._label(target)] += 1

    def samples(self) -> Iterator[Sample]:
        """For `Exposition(sources=[metrics])`."""
        for result, number in self.received.items():
            yield "workqueue_relay_requests_total", (result,), number
        for (target, outcome), number in self._calls.items():
            yield "workqueue_relay_calls_total", (target, outcome), number
        for target, number in self._put_off.items():
            yield "workqueue_relay_put_off_total", (target,), number
        down = {self._label(target) for target in self.down()}
        for target in sorted(self._targets | down):
            yield "workqueue_relay_target_down", (target,), int(target in down)

    def _label(self, target: str) -> str:
        if target not in self._targets:
            if len(self._targets) >= _MOST_TARGETS:
                return _OTHER
            self._targets.add(target)
        return target
