"""Every backend that the suites run on. Adding one is one line in `BACKENDS`; its servers start once a test session."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from examples.three_verbs import Table, ThreeVerbs
from tests.fakes.gcs.process import GcsProcess
from tests.fakes.redis_server import RedisCluster, RedisSentinels, shared_server
from workqueue.conformance import Need, Target, URLTarget
from workqueue.interface import WorkQueue
from workqueue.lease import DEFAULT_LEASE
from workqueue.testing import FakeClock


@dataclass(frozen=True)
class Backend:
    """A backend under test: how to open a target on it, what it honestly lacks, and how long the model suite takes."""

    name: str
    opened: Callable[[], AbstractContextManager[Target]]
    lacks: frozenset[Need] = frozenset()
    lives: int = 12


# What the fallbacks cannot make up for: listing and starting are two steps, and nothing is indexed, stored or awaited.
THREE_VERBS_LACK = frozenset(
    {Need.EXACT, Need.BULK, Need.COMPLETE, Need.PIPELINE, Need.COUNTS, Need.SEARCH, Need.WAIT, Need.CONFIGURE}
)


@contextmanager
def memory() -> Iterator[Target]:
    yield URLTarget("memory://")


class Tables:
    """A target on the example backend: each name is a table of its own, which outlives the queues opened on it."""

    lease = DEFAULT_LEASE.duration
    durable = True
    fake_clock = True

    def __init__(self) -> None:
        self.tables: defaultdict[str, Table] = defaultdict(Table)

    def open(self, name: str, *, clock: FakeClock | None, owner: str) -> WorkQueue:
        return ThreeVerbs(self.tables[name], clock=clock, owner=owner)


@contextmanager
def three_verbs() -> Iterator[Target]:
    yield Tables()


@contextmanager
def redis() -> Iterator[Target]:
    yield URLTarget(shared_server().url())


@contextmanager
def redis_sentinel() -> Iterator[Target]:
    with RedisSentinels(replicas=1) as sentinels:
        yield URLTarget(sentinels.url())


@contextmanager
def redis_cluster() -> Iterator[Target]:
    with RedisCluster() as cluster:
        yield URLTarget(cluster.url())


@contextmanager
def sqlite() -> Iterator[Target]:
    with TemporaryDirectory() as folder:
        yield URLTarget(f"sqlite:///{folder}/queue.db")


@contextmanager
def gcs() -> Iterator[Target]:
    with GcsProcess() as server:
        yield URLTarget(f"gs://wq?endpoint={server.url}&anonymous=true")


@contextmanager
def gcs_exact() -> Iterator[Target]:
    """Strict where a bucket can be: slots for the limit, one order for all dispatchers, a new listing each step."""
    with GcsProcess() as server:
        yield URLTarget(f"gs://wq?endpoint={server.url}&anonymous=true&exact=true&spread=false&refresh=0s")


BACKENDS = [
    Backend("memory", memory, frozenset({Need.DURABLE, Need.PIPELINE}), lives=60),
    Backend("redis", redis),
    Backend("redis+sentinel", redis_sentinel),
    Backend("redis+cluster", redis_cluster),
    Backend("sqlite", sqlite),
    # A bucket tells nobody of a change, and a lease step on it is many requests; slots make the limit exact.
    Backend("gcs", gcs, frozenset({Need.COMPLETE, Need.PIPELINE, Need.EXACT, Need.WAKE})),
    Backend("gcs+exact", gcs_exact, frozenset({Need.COMPLETE, Need.PIPELINE, Need.WAKE})),
    Backend("three-verbs", three_verbs, THREE_VERBS_LACK, lives=60),
]
