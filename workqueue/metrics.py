"""What is counted on the way, as plain numbers; `metric_table` says under which names a scrape shows it.

The hot path adds to integers in preallocated lists, about a microsecond for all of a key's life; Prometheus appears
only when somebody scrapes (`exposition`). Where two metrics measure one thing in different buckets, it is counted once,
in the finer buckets of both, and folded at the scrape.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, Literal, TypeVar, get_args

from workqueue.clock import to_us
from workqueue.equipment import Equipment
from workqueue.handles import Owned
from workqueue.interface import OwnedInProgressKey
from workqueue.metric_table import BUCKETS, MAX_PRIORITY_CLASSES
from workqueue.optional import Counts, RecoveredOrphan
from workqueue.rules import Entry
from workqueue.throttle import Configuration

__all__ = [
    "OTHER_CLASS",
    "ByPriorityClass",
    "DispatchMetrics",
    "EventResult",
    "Histogram",
    "PriorityClasses",
    "QueueMetrics",
    "RoundResult",
    "SettleOutcome",
    "TriggerResult",
    "Waits",
    "Work",
    "metrics_of",
    "priority_class",
]

SettleOutcome = Literal[
    "completed", "requeued", "retried", "dead-lettered", "expired", "dropped", "released", "lost", "unsettled"
]
"""How an attempt ended. `requeued`: the callback asked for it; `retried`: it failed and is queued again with a backoff;
`expired`: it failed past its deadline and is dead-lettered; `dropped`: it failed as non-retriable; `lost`: the lease
was gone; `unsettled`: the store failed, the lease will lapse.
"""

RoundResult = Literal["ok", "failed", "target-down"]
"""`failed`: the store failed; `target-down`: some keys could not be called, or starts are held for that."""

TriggerResult = Literal["dispatched", "shed"]
EventResult = Literal["sent", "failed", "dropped"]
"""`failed`: the broker did not take it; `dropped`: never tried, because too many were waiting or we shut down."""

OTHER_CLASS = "other"
_SAMPLE_EVERY_US = 5_000_000
_RECENT_US = 60_000_000
_T = TypeVar("_T")
_R = TypeVar("_R", bound=str)


class Histogram:
    """Counts per bucket and the sum, in integers: microseconds, or plain numbers with a `scale` of 1.

    Args:
        bounds: upper bounds of the buckets, inclusive, ascending, in the metric's own unit (seconds).
        scale: how many of the observed units make one of the metric's.
    """

    __slots__ = ("bounds", "counts", "limits", "scale", "total")

    def __init__(self, bounds: Sequence[float], scale: int = 1_000_000) -> None:
        self.bounds = tuple(bounds)
        self.scale = scale
        self.limits = [int(bound * scale) for bound in bounds]  # exact for whole numbers: n <= 0.7 is n <= 0
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0

    def observe(self, value: int) -> None:
        """Count one value; a negative one (the wall clock was set back) is counted as zero."""
        if value <= 0:
            self.counts[0] += 1
        else:
            self.counts[bisect_left(self.limits, value)] += 1
            self.total += value

    def observe_all(self, values: list[int]) -> None:
        """Count several values, which are sorted by it: most of a step fall into one bucket."""
        values.sort()
        limits, at = self.limits, bisect_left(values, 1)
        self.counts[0] += at
        self.total += sum(values[at:])
        while at < len(values):
            bucket = bisect_left(limits, values[at])
            end = bisect_right(values, limits[bucket], at) if bucket < len(limits) else len(values)
            self.counts[bucket] += end - at
            at = end


def priority_class(priority: int) -> int:
    """The number in the label `<n>xx`: hundreds, rounded towards zero as Go's integer division does."""
    return priority // 100 if priority >= 0 else -(-priority // 100)


class PriorityClasses:
    """The label values of one queue's priority classes: the first ones seen, the rest are `other`.

    A producer that uses the priority as a timestamp must not blow up the metrics store.
    """

    def __init__(self) -> None:
        self._labels: dict[int, str] = {}

    def label(self, number: int) -> str:
        """The label value of a class number."""
        label = self._labels.get(number)
        if label is None and len(self._labels) < MAX_PRIORITY_CLASSES - 1:
            label = self._labels[number] = f"{number}xx"
        return label or OTHER_CLASS


class ByPriorityClass(dict[int, _T], Generic[_T]):
    """Accumulators by class number; those that `classes` calls `other` share one and are not kept by number."""

    def __init__(self, make: Callable[[], _T], classes: PriorityClasses) -> None:
        super().__init__()
        self._make = make
        self._classes = classes
        self._other: _T | None = None

    def __missing__(self, number: int) -> _T:
        if self._classes.label(number) != OTHER_CLASS:
            self[number] = self._make()
            return self[number]
        if self._other is None:
            self._other = self._make()
        return self._other

    def labelled(self) -> Iterator[tuple[str, _T]]:
        """Every accumulator with its label value."""
        for number, accumulator in self.items():
            yield self._classes.label(number), accumulator
        if self._other is not None:
            yield OTHER_CLASS, self._other


class Waits:
    """How long keys of one class waited. Without a not-before both waits are one, which is then counted once."""

    __slots__ = ("both", "from_queued", "from_scheduled")

    def __init__(self) -> None:
        self.both = Histogram(BUCKETS["wait"])
        self.from_queued = Histogram(BUCKETS["wait"])
        self.from_scheduled = Histogram(BUCKETS["wait"])


class Work:
    """What became of keys of one class: how long completed attempts took, and the whole story of ended keys."""

    __slots__ = ("completed", "dead_lettered", "took")

    def __init__(self) -> None:
        self.took = Histogram(BUCKETS["work"])
        self.completed = Histogram(BUCKETS["time_to_completion"])
        self.dead_lettered = Histogram(BUCKETS["time_to_completion"])


class QueueMetrics:
    """What one queue counts: written by its backend. `counts` is what the gauges show, None while unknown.

    `configuration` is what is stored with the queue, as it was when the queue was last counted.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.classes = PriorityClasses()
        self.added = 0
        self.deduped = 0
        self.expired_leases = 0
        self.counts: Counts | None = None
        self.configuration = Configuration()
        self.time_until_eligible = Histogram(BUCKETS["time_until_eligible"])
        self.enumerate_latency = Histogram(BUCKETS["enumerate_latency"])
        self.waits = ByPriorityClass(Waits, self.classes)

    def enqueued(self, until_eligible_us: int, *, deduped: bool) -> None:
        """One enqueue was stored (`deduped`: merged with the queued entry of its key)."""
        if deduped:
            self.deduped += 1
        else:
            self.added += 1
        if until_eligible_us <= 0:  # nearly every enqueue
            self.time_until_eligible.counts[0] += 1
        else:
            self.time_until_eligible.observe(until_eligible_us)

    def requeued(self, until_eligible_us: int) -> None:
        """An attempt put its key back."""
        self.time_until_eligible.observe(until_eligible_us)

    def started(self, entry: Entry, now_us: int) -> None:
        """As `started_all`, for one."""
        self.started_all((entry,), now_us)

    def started_all(self, entries: Iterable[Entry], now_us: int) -> None:
        """`entries`, as they were while queued, were started now (wall time)."""
        waited: dict[int, list[int]] = defaultdict(list)
        for entry in entries:
            priority, queued_us = entry.priority, entry.queued_us
            number = priority // 100 if priority >= 0 else -(-priority // 100)
            if entry.not_before_us <= queued_us:
                waited[number].append(now_us - queued_us)
            else:
                self.waits[number].from_queued.observe(now_us - queued_us)
                self.waits[number].from_scheduled.observe(now_us - entry.not_before_us)
        for number, waits in waited.items():
            self.waits[number].both.observe_all(waits)

    def expired(self, leases: int) -> None:
        """Count `leases` recovered orphans."""
        self.expired_leases += leases

    def enumerated(self, took_us: int) -> None:
        """One listing of the store took `took_us` microseconds."""
        self.enumerate_latency.observe(took_us)


def metrics_of(queue: object) -> QueueMetrics:
    """The metrics that `queue` counts in, or new ones under its name if its backend counts nothing."""
    equipment = Equipment.of(queue)
    return equipment.metrics or QueueMetrics(equipment.name)


class DispatchMetrics:
    """What one dispatcher counts: `began` and `settled` for every attempt; the rest are plain numbers to add to.

    Args:
        name: the queue's.
        classes: the queue's, so that one priority has one label everywhere (see `of`).

    `rounds`, `triggers`, `events` and `changes` are counted by adding to them: `metrics.rounds["ok"] += 1`;
    `runaway_callbacks` is a gauge: add 1 when a callback outlives its cancellation, subtract 1 when it ends. Two are
    asked at each scrape: `is_target_down`, whether starts are held because the target is down, and `limit`, the most
    keys in progress.
    """

    def __init__(self, name: str, classes: PriorityClasses | None = None) -> None:
        self.name = name
        self.outcomes: dict[SettleOutcome, int] = _zeroes(get_args(SettleOutcome))
        self.rounds: dict[RoundResult, int] = _zeroes(get_args(RoundResult))
        self.triggers: dict[TriggerResult, int] = _zeroes(get_args(TriggerResult))
        self.events: Mapping[EventResult, int] = _zeroes(get_args(EventResult))
        self.changes: dict[EventResult, int] = _zeroes(get_args(EventResult))
        self.runaway_callbacks = 0
        self.is_target_down: Callable[[], bool] = lambda: False
        self.limit: Callable[[], int] = lambda: 0
        self.running: dict[OwnedInProgressKey, int] = {}
        self._steady_is_behind_us = 0  # the wall clock
        self._sample_due_us = 0
        self._recent: deque[tuple[int, int, dict[SettleOutcome, int]]] = deque()
        self._given_up_orphans = 0
        self._later_attempts = Histogram(BUCKETS["attempts_at_completion"], scale=1)
        self.lease_age = Histogram(BUCKETS["lease_age"])
        self.work = ByPriorityClass(Work, classes or PriorityClasses())
        self.uncompleted = Histogram(BUCKETS["work"])

    @classmethod
    def of(cls, queue: object) -> DispatchMetrics:
        """The metrics of a dispatcher of `queue`, named and classed as the queue's own where it has any."""
        own = metrics_of(queue)
        return cls(own.name, own.classes)

    def began(self, attempts: Iterable[OwnedInProgressKey], steady_us: int, wall_us: int) -> None:
        """Their callbacks are being called; `settled` gets each of these `attempts`. Both clocks say now."""
        self.running.update(dict.fromkeys(attempts, steady_us))
        self._steady_is_behind_us = wall_us - steady_us

    def settled(self, outcome: SettleOutcome, owned: OwnedInProgressKey, steady_us: int) -> None:
        """The attempt that `began` with `owned` is over: called once for each, whatever became of it.

        How long ago its key's story began is counted by the wall clock as it stood at the last start: that is read once
        a step, and a clock that is set meanwhile makes no story longer.

        Args:
            outcome: what was applied in the store.
            owned: the attempt's handle, as given to `began`.
            steady_us: the steady clock now, for how long it took.
        """
        now_us = steady_us + self._steady_is_behind_us
        took_us = steady_us - self.running.pop(owned, steady_us)
        self.outcomes[outcome] += 1
        if outcome != "completed":
            self.uncompleted.observe(took_us)
            if outcome == "dead-lettered" or outcome == "expired":
                entry = _entry(owned)
                self.work[priority_class(entry.priority)].dead_lettered.observe(now_us - entry.first_queued_us)
            return
        entry = owned.entry if type(owned) is Owned else _entry(owned)
        priority = entry.priority
        work = self.work[priority // 100 if priority >= 0 else -(-priority // 100)]
        work.took.observe(took_us)
        work.completed.observe(now_us - entry.first_queued_us)
        if entry.attempts > 1:
            self._later_attempts.observe(entry.attempts)

    @property
    def attempts_at_completion(self) -> Histogram:
        """Which attempts completed. Of these most are the first of their keys: those are counted when somebody asks."""
        all_attempts, later = Histogram(BUCKETS["attempts_at_completion"], scale=1), self._later_attempts
        first = self.outcomes["completed"] - sum(later.counts)
        all_attempts.counts = [first + later.counts[0], *later.counts[1:]]
        all_attempts.total = first + later.total
        return all_attempts

    def recovered(self, orphans: Iterable[RecoveredOrphan], now_us: int) -> None:
        """These orphans were found; those given up end their key's story as any other dead letter does."""
        for orphan in orphans:
            if orphan.dead_lettered:
                self.outcomes["dead-lettered"] += 1
                self._given_up_orphans += 1
                age_us = now_us - to_us(orphan.first_queued_time)
                self.work[priority_class(orphan.priority)].dead_lettered.observe(age_us)

    def sample_leases(self, steady_us: int) -> None:
        """Observe how old each running attempt is by now, as Go does at each listing; often called, seldom done."""
        if steady_us >= self._sample_due_us:
            self._sample_due_us = steady_us + _SAMPLE_EVERY_US
            for began_us in list(self.running.values()):
                self.lease_age.observe(steady_us - began_us)
            self._remember(steady_us)

    def rates(self, steady_us: int) -> tuple[float, float, dict[SettleOutcome, float]]:
        """Over how many seconds up to now, about the last 60, and how many attempts a second began and ended so."""
        since_us, began, before = self._recent[0] if self._recent else (steady_us, self._starts(), self.outcomes)
        seconds = (steady_us - since_us) / 1e6
        per_second = 1 / seconds if seconds else 0.0
        ended = {outcome: (number - before[outcome]) * per_second for outcome, number in self.outcomes.items()}
        return seconds, (self._starts() - began) * per_second, ended

    def _starts(self) -> int:
        """How many attempts began so far: those that ended and those in hand. So a start itself costs no counting."""
        return sum(self.outcomes.values()) - self._given_up_orphans + len(self.running)

    def _remember(self, steady_us: int) -> None:
        """Keep what was counted by now; of what is older than a minute the newest."""
        self._recent.append((steady_us, self._starts(), dict(self.outcomes)))
        while len(self._recent) > 1 and self._recent[1][0] <= steady_us - _RECENT_US:
            self._recent.popleft()


def _zeroes(names: tuple[_R, ...]) -> dict[_R, int]:
    return dict.fromkeys(names, 0)  # a counter that exists from the start has a rate when it first moves


def _entry(owned: OwnedInProgressKey) -> Entry:
    if isinstance(owned, Owned):
        return owned.entry
    queued_us, first_us = to_us(owned.queued_time), to_us(owned.first_queued_time)
    return Entry(owned.key, owned.priority, owned.attempts, queued_us, first_us)
