"""The hypothesis machine that lives random lives of a queue, and holds it against the model after every step.

Steps are taken by three peers with leases of their own. Where DESIGN leaves something open (an entry touched without
being changed, a lease whose last renewal was seconds before it was abandoned) the machine does not ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.model.model import Model, Waiting
from workqueue.conformance import Case, Need, Target
from workqueue.errors import KeyNotFoundError, StartLostError
from workqueue.fallbacks import FullQueue
from workqueue.interface import OwnedInProgressKey
from workqueue.optional import Leased, LeaseRequest
from workqueue.options import Options
from workqueue.orphan import ORPHAN_ERROR
from workqueue.throttle import Configuration

KEYS = ("a", "b", "é/..")
OWNERS = ("", "blue", "green")
ORPHAN_BACKOFF = 20
BACKOFFS = st.sampled_from((0, ORPHAN_BACKOFF))  # zero leaves it to the default, which is none after a first attempt
MANY = 1000

keys = st.sampled_from(KEYS)
peers = st.integers(0, len(OWNERS) - 1)
choices = st.integers(0, 99)
SETTLES = st.sampled_from(
    (
        ("complete", {}),
        ("release", {}),
        ("dead_letter", {}),
        ("requeue", {}),
        ("requeue", {"delay": 5}),
        ("requeue", {"delay": 40, "floor": True}),
        ("requeue", {"backoff": 40}),
    )
)
TAKES = st.sampled_from(
    (("requeue", {}), ("requeue", {"backoff": 0}), ("requeue", {"backoff": 40}), ("dead_letter", {}))
)
ENTRIES = st.builds(
    Waiting,
    priority=st.sampled_from((-1, 0, 0, 5)),
    attempts=st.just(0),
    queued=st.just(0),
    first=st.just(0),
    not_before=st.sampled_from((None, None, -5, 10, 40)),
    floor=st.booleans(),
    payload=st.sampled_from((None, b"", b"x", b"y")),
    meta=st.sampled_from(({}, {"m": "1"}, {"m": "2", "n": "2"})),
)
T = TypeVar("T")


@dataclass
class Held:
    """An owned handle: whose it is, which start of the model it stands for, and whether its verbs must answer False."""

    owned: OwnedInProgressKey
    peer: int
    token: int
    over: bool = False
    renewing: bool = True


@dataclass
class Seen:
    """A handle listed earlier, what the model had for its key then, and when."""

    handle: Any
    was: Any
    at: int


class QueueMachine(RuleBasedStateMachine):
    """Takes each step on the queue and on the model, and compares everything that can be seen."""

    target: ClassVar[Target]
    lacks: ClassVar[frozenset[Need]]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.case = self.do(Case(self.target).__aenter__())
        self.peers = [self.do(self.case.peer(owner)) for owner in OWNERS]
        self.model = Model(self.case.clock.wall_us() // 1_000_000)
        self.set_back = False
        self.held: list[Held] = []
        self.seen: dict[str, list[Seen]] = {"queued": [], "in progress": [], "dead": []}

    def teardown(self) -> None:
        self.do(self.case.__aexit__(None, None, None))
        self.runner.close()

    def do(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(step)

    # producing and configuring

    @rule(key=keys, peer=peers, entry=ENTRIES)
    def enqueue(self, key: str, peer: int, entry: Waiting) -> None:
        wall, wait = self.model.wall, entry.not_before
        entry = replace(entry, queued=wall, first=wall, floor=entry.floor and wait is not None)
        entry = replace(entry, not_before=None if wait is None else wall + wait)
        not_before = None if wait is None else self.case.later(wait)
        options = Options(entry.priority, not_before, entry.floor, entry.payload, entry.meta)
        self.do(self.peers[peer].queue(key, options))
        self.model.enqueue(key, entry)

    @precondition(lambda self: Need.CONFIGURE not in self.lacks)
    @rule(paused=st.booleans(), concurrency=st.sampled_from((None, 1, 2)))
    def configure(self, paused: bool, concurrency: int | None) -> None:
        self.do(self.case.queue.configure(Configuration(concurrency, paused)))
        self.model.paused, self.model.stored_concurrency = paused, concurrency

    # starting

    @rule(
        peer=peers, limit=st.integers(0, 3), concurrency=st.integers(1, 4), max_retry=st.integers(0, 3), first=BACKOFFS
    )
    def lease(self, peer: int, limit: int, concurrency: int, max_retry: int, first: int) -> None:
        def backoff(attempts: int) -> timedelta:
            return timedelta(seconds=first if attempts == 1 else ORPHAN_BACKOFF)

        leased = self.do(self.peers[peer].lease(LeaseRequest(limit, concurrency, max_retry, backoff)))
        self.check_recovered(leased, max_retry, first)
        room = min(limit, self.model.room(concurrency))
        started, eligible = [owned.key for owned in leased.started], self.model.eligible()
        if Need.EXACT in self.lacks:  # listing and starting are two steps there, so a recovered twin may wait a round
            assert len(started) <= room
            assert set(started) <= set(eligible)
        else:
            assert started == eligible[:room]
        for owned in leased.started:
            self.own(owned, peer)

    def check_recovered(self, leased: Leased, max_retry: int, first: int) -> None:
        orphans = [(key, held) for key, held in self.model.running.items() if self.model.orphaned(key)]
        spent = {key: 0 < max_retry <= held.entry.attempts for key, held in orphans}
        expected = sorted((key, held.entry.attempts, held.owner, spent[key]) for key, held in orphans)
        assert sorted((o.key, o.attempts, o.owner, o.dead_lettered) for o in leased.recovered) == expected
        for key, held in orphans:
            if spent[key]:
                self.model.dead_letter(key, ORPHAN_ERROR)
            else:
                self.model.requeue(key, backoff=first if held.entry.attempts == 1 else ORPHAN_BACKOFF)

    def own(self, owned: OwnedInProgressKey, peer: int) -> None:
        token = self.model.start(owned.key, OWNERS[peer])
        entry = self.model.running[owned.key].entry
        found = (owned.attempts, owned.payload, dict(owned.meta), seconds(owned.first_queued_time))
        agree(found, (entry.attempts, entry.payload, dict(entry.meta), entry.first))
        self.held.append(Held(owned, peer, token))

    # ending attempts; the handle may be stale, its key taken, started again, or long complete

    @precondition(lambda self: self.held)
    @rule(which=choices, settle=SETTLES)
    def settle(self, which: int, settle: tuple[str, dict[str, int]]) -> None:
        held, (verb, how) = self.held[-1 - which % min(len(self.held), 5)], settle
        key = held.owned.key
        applies = not held.over and self.model.owns(key, held.token)
        assert self.do(self.settled(held.owned, verb, how)) is applies
        held.over = True
        if applies:
            getattr(self.model, verb)(key, *(["boom"] if verb == "dead_letter" else []), **how)
        else:
            assert held.owned.lost.is_set()

    async def settled(self, handle: Any, verb: str, how: dict[str, int]) -> bool:
        arguments = {name: value if name == "floor" else timedelta(seconds=value) for name, value in how.items()}
        answer: bool = await getattr(handle, verb)(*(["boom"] if verb == "dead_letter" else []), **arguments)
        return answer

    @precondition(lambda self: self.held)
    @rule(which=choices)
    def abandon(self, which: int) -> None:
        held = self.held[which % len(self.held)]
        held.owned.abandon()
        self.no_longer_renewed(held)

    def no_longer_renewed(self, held: Held) -> None:
        held.renewing = False
        if not held.over and self.model.owns(held.owned.key, held.token):
            self.model.abandon(held.owned.key)

    @rule(peer=peers)
    def crash(self, peer: int) -> None:
        """One process dies and another takes its place; the handles it had are gone with it."""
        for held in [held for held in self.held if held.peer == peer]:
            self.no_longer_renewed(held)
            self.held.remove(held)
        self.seen = {place: [] for place in self.seen}
        self.do(self.replace_peer(peer))

    async def replace_peer(self, peer: int) -> None:
        await self.case.close(self.peers[peer])
        self.peers[peer] = await self.case.peer(OWNERS[peer])

    # time

    @rule(by=st.sampled_from((1, 5, 20, 40)))
    def advance(self, by: int) -> None:
        self.do(self._passed(by))
        self.model.advance(by)
        self.be_sure()

    def be_sure(self) -> None:
        while self.model.unsure():
            self.do(self._passed(1))
            self.model.advance(1)

    async def _passed(self, seconds: int) -> None:
        """Let time pass while the loop runs: leases of a loop that stands still for two of them are let go."""
        self.case.advance(seconds)

    @rule(long=st.booleans())
    def freeze(self, long: bool) -> None:
        """Every process stands still; for longer than a lease, and each owner is told as soon as it runs again."""
        told = [held for held in self.held if long and held.renewing and not held.over]
        for held in told:
            self.no_longer_renewed(held)
            held.over = True
        by = 20 if long else 5
        self.case.clock.freeze(timedelta(seconds=by))
        self.model.advance(by)
        assert all(held.owned.lost.is_set() for held in told)
        self.be_sure()

    @rule(by=st.sampled_from((-3600, 3600)))
    def jump_wall(self, by: int) -> None:
        wall = self.model.wall
        due = [entry.not_before for entry in self.model.queued.values() if entry.not_before is not None]
        if any(wall + by < moment <= wall for moment in due):
            return  # whether what came due once stays eligible is left open
        self.case.clock.jump_wall(timedelta(seconds=by))
        self.model.wall += by
        self.set_back |= by < 0

    # handles of listings, used at once or later

    @rule(peer=peers)
    def look(self, peer: int) -> None:
        self.do(self.remember(self.peers[peer]))

    async def remember(self, queue: FullQueue) -> None:
        snapshot, at = await queue.enumerate(MANY), self.model.steady
        for queued in (*snapshot.queued, *snapshot.twins):
            self.seen["queued"].append(Seen(queued, self.model.queued[queued.key], at))
        for observed in snapshot.in_progress:
            self.seen["in progress"].append(Seen(observed, self.model.running[observed.key], at))
        async for letter in snapshot.dead_letters:
            self.seen["dead"].append(Seen(letter, self.model.dead[letter.key], at))

    @precondition(lambda self: self.seen["queued"])
    @rule(which=choices)
    def start_listed(self, which: int) -> None:
        seen = self.recent("queued", which)
        key = seen.handle.key
        verdict = unchanged(seen.was, self.model.queued.get(key)) if self.model.is_eligible(key) else False
        owned = self.do(self.start(seen.handle))
        assert verdict is None or (owned is not None) is verdict
        if owned is not None:
            self.own(owned, OWNERS.index(self.do(self.owner_of(key))))

    async def start(self, handle: Any) -> OwnedInProgressKey | None:
        try:
            owned: OwnedInProgressKey = await handle.start()
        except StartLostError:
            return None
        return owned

    async def owner_of(self, key: str) -> str:
        return (await self.case.observed(key)).owner

    @precondition(lambda self: self.seen["queued"])
    @rule(which=choices)
    def drop_listed(self, which: int) -> None:
        seen = self.recent("queued", which)
        verdict = unchanged(seen.was, self.model.queued.get(seen.handle.key))
        dropped = self.do(seen.handle.drop())
        assert verdict is None or dropped is verdict
        if dropped:
            del self.model.queued[seen.handle.key]

    @precondition(lambda self: self.seen["in progress"])
    @rule(which=choices, settle=TAKES)
    def take_observed(self, which: int, settle: tuple[str, dict[str, int]]) -> None:
        seen, (verb, how) = self.recent("in progress", which), settle
        key = seen.handle.key
        verdict = self.still_observed(seen)
        if verdict is None:
            return
        assert self.do(self.settled(seen.handle, verb, how)) is verdict
        if verdict:
            getattr(self.model, verb)(key, *(["boom"] if verb == "dead_letter" else []), **how)

    def still_observed(self, seen: Seen) -> bool | None:
        """Whether the lease is the one observed; None if a renewal may have come in between or not."""
        if not self.model.owns(seen.handle.key, seen.was.token):
            return False
        abandoned_at = self.model.running[seen.handle.key].abandoned_at
        if self.model.steady == seen.at or (abandoned_at is not None and abandoned_at <= seen.at):
            return True
        return False if abandoned_at is None and self.model.steady - seen.at > 7 else None

    @precondition(lambda self: self.seen["dead"])
    @rule(which=choices, redrive=st.booleans())
    def act_on_dead_letter(self, which: int, redrive: bool) -> None:
        seen = self.recent("dead", which)
        key = seen.handle.key
        verdict = unchanged(seen.was, self.model.dead.get(key))
        applied = self.do(seen.handle.requeue() if redrive else seen.handle.drop())
        assert verdict is None or applied is verdict
        if applied and redrive:
            self.model.redrive(key)
        elif applied:
            del self.model.dead[key]

    def recent(self, place: str, which: int) -> Seen:
        seen = self.seen[place]
        return seen[-1 - which % min(len(seen), 6)]

    # what everybody can see

    @invariant()
    def agrees(self) -> None:
        agree(self.do(self.view()), self.model.view())
        for key in KEYS:
            agree(self.do(self.state(key)), self.model.state(key))
        if Need.COUNTS not in self.lacks:
            agree(self.do(self.counts()), self.expected_counts())

    async def view(self) -> dict[str, Any]:
        snapshot = await self.case.queue.enumerate(MANY)
        letters = [letter async for letter in snapshot.dead_letters]
        return {
            "in progress": sorted((o.key, o.attempts, o.owner, o.orphaned) for o in snapshot.in_progress),
            "queued": [(queued.key, *facts(queued)) for queued in snapshot.queued],
            "twins": sorted((twin.key, *facts(twin)) for twin in snapshot.twins),
            "dead": sorted((d.key, d.priority, d.attempts, repr(d.payload), *ending(d)) for d in letters),
        }

    async def state(self, key: str) -> tuple[Any, ...] | None:
        try:
            state = await self.case.queue.get(key)
        except KeyNotFoundError:
            return None
        return (state.status.name, state.owner, state.error, *facts(state))

    async def counts(self) -> dict[str, Any]:
        counts = await self.case.queue.counts()
        return {name: getattr(counts, name) for name in self.expected_counts()}

    def expected_counts(self) -> dict[str, Any]:
        expected = self.model.counts()
        if self.set_back:  # a not-before may now be older than its entry; the longest wait is then nobody's business
            del expected["oldest_queued_seconds"]
        return expected


def agree(found: object, expected: object) -> None:
    assert found == expected, f"the queue shows {found}, the model {expected}"


def unchanged(was: Any, now: Any) -> bool | None:
    """Whether what was listed is as it was; None if it was touched without being changed."""
    if now is None:
        return False
    if now == was:
        return True
    return None if now.same_as(was) else False


def seconds(moment: datetime | None) -> float | None:
    """Whole seconds since the epoch; the model knows nothing smaller."""
    return None if moment is None else (moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)


def facts(handle: Any) -> tuple[Any, ...]:
    meta = tuple(sorted(handle.meta.items()))
    times = (seconds(handle.queued_time), seconds(handle.not_before), handle.floor)
    return (handle.priority, handle.attempts, *times, repr(handle.payload), meta)


def ending(letter: Any) -> tuple[Any, ...]:
    meta = tuple(sorted(letter.meta.items()))
    return (meta, seconds(letter.queued_time), letter.error, seconds(letter.failed_time))
