"""kill -9 at fifty points of a key's life on Redis: on one server, in a cluster, and with a failover in the middle."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest

from tests.fakes.redis_server import RedisCluster, RedisSentinels, RedisServer
from tests.kill9.ledger import Ledger, faults
from tests.kill9.test_kill9 import POINTS, two_lives, wrong

_LINES_BETWEEN = 5  # of a ledger
SETTINGS = {"lease": "3s", "renew": "500ms"}


def workspaces_for(folder: Path, points: Sequence[str], url: Callable[[str], str]) -> dict[Path, str]:
    """A workspace with a queue of its own for each kill point."""
    places = {folder / point.replace(":", "-"): point for point in points}
    for workspace in places:
        workspace.mkdir()
        (workspace / "url").write_text(url(workspace.name))
    return places


def wrong_by_point(places: dict[Path, str]) -> dict[str, list[str]]:
    ended = two_lives(places.items())
    assert {workspace for workspace, *_ in ended} == places.keys()
    found = {places[workspace]: wrong(workspace, *lives) for workspace, *lives in ended}
    return {point: faults for point, faults in found.items() if faults}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(4))
def test_nothing_is_lost_or_run_twice_at_once_when_a_process_is_killed_at_any_stage(tmp_path: Path, part: int) -> None:
    with RedisServer() as server:
        places = workspaces_for(tmp_path, POINTS[part::4], lambda name: server.url(name, **SETTINGS))
        assert wrong_by_point(places) == {}


@pytest.mark.timeout(300)
def test_the_same_holds_on_a_cluster_of_three(tmp_path: Path) -> None:
    with RedisCluster() as cluster:
        places = workspaces_for(tmp_path, POINTS[::5], lambda name: cluster.url(name, **SETTINGS))
        assert wrong_by_point(places) == {}


@pytest.mark.timeout(300)
def test_the_same_holds_while_redis_itself_is_killed_with_an_aof_that_is_always_synced(tmp_path: Path) -> None:
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        places = workspaces_for(tmp_path, POINTS[1::5], lambda name: server.url(name, **SETTINGS))

        def kill_and_restart() -> None:
            server.kill()
            server.start()

        with repeatedly(kill_and_restart, 3, places):
            assert wrong_by_point(places) == {}


@pytest.mark.timeout(300)
def test_no_accepted_key_is_lost_by_a_failover_in_the_middle_when_a_replica_is_waited_for(tmp_path: Path) -> None:
    with RedisSentinels(replicas=2) as sentinels:
        places = workspaces_for(tmp_path, POINTS[2::5], lambda name: sentinels.url(name, wait_replicas=1, **SETTINGS))
        with repeatedly(sentinels.fail_over, 1, places):
            ended = two_lives(places.items())

        never = [fault for workspace in places for fault in faults(Ledger(workspace).read()) if "never" in fault]
        assert (never, ended_badly(ended)) == ([], [])


def ended_badly(ended: Sequence[tuple[Path, int, int]]) -> list[str]:
    """What the last lives that did not go on until nothing was left have logged: what they left proves no loss."""
    return [f"{second}: {(workspace / 'log').read_text()[-2000:]}" for workspace, _, second in ended if second != 0]


class repeatedly:  # noqa: N801 - reads as a word
    """Meanwhile, do `step` so many times, whenever the processes have got on; what it raised is raised at the end."""

    def __init__(self, step: Callable[[], object], times: int, workspaces: Collection[Path]) -> None:
        self._step = step
        self._times = times
        self._workspaces = workspaces
        self._over = threading.Event()
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self) -> None:
        try:
            for _ in range(self._times):
                self._await_progress()
                self._step()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self._errors.append(error)

    def _await_progress(self) -> None:
        enough = self._written() + _LINES_BETWEEN * len(self._workspaces)
        while self._written() < enough and not self._over.wait(0.05):
            pass

    def _written(self) -> int:
        return sum(len(Ledger(workspace).read()) for workspace in self._workspaces)
