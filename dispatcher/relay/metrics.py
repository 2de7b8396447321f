"""What a relay counts, as plain numbers: a series for each of the first hundred targets, and one for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, get_args

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
        """For `Exposition(sources=[metrics])`; zeroes too, or the first of a kind would be no increase."""
        for received in get_args(Received):
            yield "workqueue_relay_requests_total", (received,), self.received[received]
        down = {self._label(target) for target in self.down()}
        for target in sorted(self._shown | down):
            for result in get_args(CallResult):
                yield "workqueue_relay_calls_total", (target, result), self._calls[target, result]
            yield "workqueue_relay_put_off_total", (target,), self._put_off[target]
            yield "workqueue_relay_target_down", (target,), int(target in down)

    @property
    def _shown(self) -> set[str]:
        return {target for target, _ in self._calls} | set(self._put_off) | self._targets

    def _label(self, target: str) -> str:
        if target not in self._targets:
            if len(self._targets) >= _MOST_TARGETS:
                return _OTHER
            self._targets.add(target)
        return target
