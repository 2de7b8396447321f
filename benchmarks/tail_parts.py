"""What `tail` makes of notes: the way of each key from station to station, and what the slowest have in common."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from statistics import mean, median

from rich.table import Table

from benchmarks.contenders.notes import Kind, Note, since_before

__all__ = ["Part", "Way", "beside_table", "parts_table", "slowest", "ways"]

_AT = attrgetter("at")
_NEVER = 2**64

STATIONS = {
    Kind.ENQUEUE_SENT: "producer: the call began; its turn is sent",
    Kind.WOKEN: "Redis stored it; the wake-up arrives",
    Kind.WAIT_RETURNED: "queue.wait returns",
    Kind.LEASE_SENT: "the lease turn is sent",
    Kind.LEASE_ANSWERED: "Redis started it; the answer arrives",
    Kind.LEASED: "queue.lease returns",
    Kind.STEPPED: "the attempt's task takes its first step",
    Kind.STARTED: "the callback is called",
}
BESIDE = {
    Kind.OTHER_SENT: "the dispatcher sent another turn: a settle, a wait",
    Kind.OTHER_ANSWERED: "the dispatcher got the answer to another turn",
    Kind.GC_0: "garbage collection, generation 0",
    Kind.GC_1: "garbage collection, generation 1",
    Kind.GC_2: "garbage collection, generation 2",
    Kind.RENEWER: "the lease renewer's thread ticked",
    Kind.LOOP_WATCH: "the loop watch's thread looked",
    Kind.RUN_TIMES: "run times were looked at",
}


@dataclass(frozen=True)
class Part:
    """Microseconds: by the clock, and what a process computed and waited for a core meanwhile."""

    took: float
    ran: float = 0.0
    waited: float = 0.0


@dataclass(frozen=True)
class Way:
    """The way of one key: `parts` by the station at which each ends; a station that was not passed has none.

    `beside` has what else ended meanwhile, and the microseconds that it took. `redis` is what Redis did meanwhile.
    """

    number: int
    parts: Mapping[Kind, Part]
    beside: Mapping[Kind, float]
    producer_first: bool
    switched: int
    redis: Part

    @property
    def took(self) -> float:
        """From the call to the start."""
        return sum(part.took for part in self.parts.values())


def ways(producer: Sequence[Note], dispatcher: Sequence[Note]) -> list[Way]:
    """The way of each key that both noted."""
    sent, started = _own(producer), _own(dispatcher)
    redis = since_before(_in_order(note for note in (*producer, *dispatcher) if note.kind == Kind.REDIS))
    called = {note.about: note for note in sent if note.kind == Kind.CALLED}
    return [
        _way(called[start.about], start, sent, started, redis)
        for start in started
        if start.kind == Kind.STARTED and start.about in called and start.at > called[start.about].at
    ]


def _own(notes: Iterable[Note]) -> list[Note]:
    return since_before(_in_order(note for note in notes if note.kind != Kind.REDIS))


def _in_order(notes: Iterable[Note]) -> list[Note]:
    return sorted(notes, key=_AT)


def _way(call: Note, start: Note, sent: Sequence[Note], started: Sequence[Note], redis: Sequence[Note]) -> Way:
    sent, started = (_between(notes, call.at, start.at) for notes in (sent, started))
    beside: Counter[Kind] = Counter()
    for note in (*sent, *started):
        beside[note.kind] += note.about // 1000
    return Way(
        number=start.about,
        parts=_parts(call.at, sent, started),
        beside={kind: took for kind, took in beside.items() if kind in BESIDE},
        producer_first=_first(sent, Kind.ENQUEUED, 0) < _first(started, Kind.WOKEN, 0) < _NEVER,
        switched=sum(note.switched for note in (*sent, *started)),
        redis=_sum(call.at, start.at, redis[bisect_right(redis, call.at, key=_AT) :][:1]),
    )


def _parts(begin: int, sent: Sequence[Note], started: Sequence[Note]) -> dict[Kind, Part]:
    """From each station to the next that was passed; what is counted is the process's that passes it."""
    parts: dict[Kind, Part] = {}
    for station in STATIONS:
        notes = sent if station == Kind.ENQUEUE_SENT else started
        at = _first(notes, station, begin)
        if at < _NEVER:
            parts[station] = _sum(begin, at, _between(notes, begin, at))
            begin = at
    return parts


def _first(notes: Sequence[Note], kind: Kind, begin: int) -> int:
    return next((note.at for note in notes if note.kind == kind and note.at >= begin), _NEVER)


def _between(notes: Sequence[Note], begin: int, end: int) -> Sequence[Note]:
    """Those after `begin`, up to `end`."""
    return notes[bisect_right(notes, begin, key=_AT) : bisect_right(notes, end, key=_AT)]


def _sum(begin: int, end: int, notes: Sequence[Note]) -> Part:
    ran, waited = (sum(column) / 1e3 for column in ((n.ran for n in notes), (n.waited for n in notes)))
    return Part((end - begin) / 1e3, ran, waited)


def slowest(found: Sequence[Way], share: float = 0.01) -> list[Way]:
    """The slowest one in a hundred, at least one."""
    return sorted(found, key=lambda way: way.took)[-max(round(len(found) * share), 1) :]


def parts_table(found: Sequence[Way]) -> Table:
    """Each part in all ways and in the slowest: medians by the clock, means of what its process did meanwhile."""
    slow, usual = slowest(found), _usual(found)
    longest = Counter(max(way.parts, key=lambda kind: way.parts[kind].took) for way in slow)
    furthest = Counter(max(way.parts, key=lambda kind: way.parts[kind].took - usual[kind]) for way in slow)
    table = Table(
        "µs: all / slowest", "by the clock", "computed", "waited for the core", "the longest", "most above usual"
    )
    for kind, text in STATIONS.items():
        if kind in usual:
            parts = ([way.parts[kind] for way in group if kind in way.parts] for group in (found, slow))
            table.add_row(text, *_columns(*parts), str(longest[kind]), str(furthest[kind]))
    took = ([Part(way.took) for way in group] for group in (found, slow))
    table.add_row("from the call to the start", _columns(*took)[0], "", "", str(len(slow)), str(len(slow)))
    table.add_row("what Redis did meanwhile", "", *_columns([w.redis for w in found], [w.redis for w in slow])[1:])
    return table


def _usual(found: Sequence[Way]) -> dict[Kind, float]:
    took = {kind: [way.parts[kind].took for way in found if kind in way.parts] for kind in STATIONS}
    return {kind: median(all_took) for kind, all_took in took.items() if all_took}


def _columns(found: Sequence[Part], slow: Sequence[Part]) -> list[str]:
    return [
        _both(median, [part.took for part in found], [part.took for part in slow]),
        _both(mean, [part.ran for part in found], [part.ran for part in slow]),
        _both(mean, [part.waited for part in found], [part.waited for part in slow]),
    ]


def _both(middle: Callable[[Sequence[float]], float], *groups: Sequence[float]) -> str:
    return " / ".join(f"{middle(group):,.0f}" if group else "-" for group in groups)


def beside_table(found: Sequence[Way]) -> Table:
    """What else happened between a key's call and its start, in how many of all and of the slowest."""
    slow = slowest(found)
    table = Table("meanwhile", "of all", "of the slowest", "at most, µs")
    for kind, text in BESIDE.items():
        table.add_row(text, *_shares(found, slow, partial(_has, kind)), f"{_most(slow, kind):,.0f}")
    table.add_row("a process lost its core against its will", *_shares(found, slow, lambda way: way.switched > 0))
    table.add_row(
        "the producer's answer came before the wake-up", *_shares(found, slow, lambda way: way.producer_first)
    )
    table.add_row("no wake-up", *_shares(found, slow, lambda way: Kind.WOKEN not in way.parts))
    return table


def _has(kind: Kind, way: Way) -> bool:
    return kind in way.beside


def _shares(found: Sequence[Way], slow: Sequence[Way], condition: Callable[[Way], bool]) -> list[str]:
    return [f"{mean(map(condition, group)):.1%}" for group in (found, slow)]


def _most(slow: Sequence[Way], kind: Kind) -> float:
    return max(way.beside.get(kind, 0.0) for way in slow)
