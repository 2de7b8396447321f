"""A real Prometheus scrapes real programs, and each alert fires because what it is about has come about.

The rules are those of the chart, with seconds in place of minutes.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from charts.alerts import rules
from charts.pictures import Series, answers, panels, picture
from tests.chart.rendered import CHART, Object
from tests.deploy.prometheus import Prometheus
from tests.deploy.scene import Scene
from tests.fakes.redis_server import free_port
from tests.support.eventually import eventually

DASHBOARD = CHART / "dashboards" / "workqueue.json"
COUNTS = {
    "keysWaitSeconds": 2,
    "schedulesLateSeconds": 2,
    "retriesForEverAttempts": 2,
    "storeFailsCount": 1,
    "attemptsFailShare": 0.5,
    "saturatedShare": 0.95,
    "runbooks": "docs/runbooks",
}


def in_seconds() -> str:
    """The rules with the shortest durations that a Prometheus that looks every second can tell apart."""
    names = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["alerts"]
    durations = {name: "1s" if name.endswith("For") else "15s" for name in names if name not in COUNTS}
    return rules(CHART, durations | COUNTS)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("prometheus"), in_seconds()).running() as server:
        yield server


def calling(callback: str) -> str:
    return f"--callback=tests.deploy.callbacks:{callback}"


def a_key_waits(scene: Scene) -> None:
    scene.receive()
    scene.command("enqueue", "a")


def a_callback_hangs(scene: Scene) -> None:
    scene.dispatch(calling("hang"), "--concurrency=1")
    scene.command("enqueue", "a", "b")


def the_store_ends(scene: Scene) -> None:
    scene.dispatch(calling("complete"))
    shown = f'workqueue_queued_keys{{queue_name="{scene.queue}"}}'
    eventually("a count", lambda: scene.prometheus.query(shown))
    scene.store.kill()


def nothing_listens_at_the_target(scene: Scene) -> None:
    scene.dispatch(f"--target=grpc://127.0.0.1:{free_port()}")
    scene.command("enqueue", *(f"key-{number}" for number in range(30)))


def callbacks_fail_for_good(scene: Scene) -> None:
    nobody = f"--events-url=http://127.0.0.1:{free_port()}"
    scene.dispatch(calling("fail"), "--max-retry=1", "--lifecycle-events", nobody)
    scene.command("enqueue", "a")


def callbacks_fail_and_are_tried_again(scene: Scene) -> None:
    scene.dispatch(calling("fail"), "--max-retry=0", "--backoff=linear-1m")
    scene.command("enqueue", "a", "b", "c")


def a_dispatcher_is_killed(scene: Scene) -> None:
    first, _ = scene.dispatch(calling("hang"), lease="2s")
    scene.command("enqueue", "a")
    eventually("a start", lambda: json.loads(scene.command("stats", "--json"))["in_progress"] == 1)
    scene.dispatch(calling("hang"), lease="2s")
    first.tell(signal.SIGKILL)


def a_callback_swallows_its_cancellation(scene: Scene) -> None:
    scene.dispatch(calling("run_away"), "--max-run-time=1s")
    scene.command("enqueue", "a")


def an_enqueuer_loses_its_store(scene: Scene) -> None:
    put = scene.enqueue_in_background(patience=timedelta(0))
    scene.store.kill()
    put("a")


def an_enqueuer_waits_for_its_store(scene: Scene) -> None:
    put = scene.enqueue_in_background(patience=timedelta(minutes=10))
    scene.store.kill()
    put("a")


def nobody_fires_schedules(scene: Scene) -> None:
    scene.command("schedules", "add", "often", "@every 1s", "--key=often")
    scene.receive(f"{scene.queue}.schedules")


def who_fires_schedules_hangs_for_a_while(scene: Scene) -> None:
    scene.command("schedules", "add", "often", "@every 1s", "--key=often")
    firing, port = scene.fire_schedules()
    firing.tell(signal.SIGSTOP)
    passed = f'sum_over_time(up{{instance="127.0.0.1:{port}"}}[5s]) == 0'
    eventually("five seconds without an answer", lambda: scene.prometheus.query(passed))
    firing.tell(signal.SIGCONT)


def an_event_is_none(scene: Scene) -> None:
    with pytest.raises(HTTPError, match="400"):
        urlopen(f"http://127.0.0.1:{scene.subscribe()}/", data=b"{", timeout=20)


def relayed(port: int, target: str) -> int:
    """The status with which a relay answers a request for `target`."""
    request = Request(f"http://127.0.0.1:{port}/", headers={"X-Dispatcher-Original-Host": target})
    try:
        with urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def nothing_listens_at_the_target_of_a_relay(scene: Scene) -> None:
    target = f"127.0.0.1:{free_port()}"
    port = scene.relay(f"--allow-target={target}")
    assert [relayed(port, target) for _ in range(10)] == [202] * 10


def the_store_of_a_relay_ends(scene: Scene) -> None:
    port = scene.relay("--allow-any-target")
    scene.store.kill()
    assert relayed(port, "target.example") == 503


def all_is_well(scene: Scene) -> None:
    """No alert is about this: keys complete, one after another, and triggers come, so that there are rates to show."""
    _, port = scene.dispatch(calling("complete"))
    completed = f'sum(workqueue_outcomes_total{{queue_name="{scene.queue}",outcome="completed"}})'
    for number in range(1, 4):
        scene.command("enqueue", f"key-{number}")
        urlopen(f"http://127.0.0.1:{port}/", timeout=20).close()
        eventually("its end", functools.partial(scene.prometheus.query, f"{completed} == {number}"))


CAUSES: dict[str, Callable[[Scene], None]] = {
    "WorkqueueKeysWait": a_key_waits,
    "WorkqueueNoProgress": a_callback_hangs,
    "WorkqueueNobodyThere": a_key_waits,
    "WorkqueueNotCounted": the_store_ends,
    "WorkqueueStoreFails": the_store_ends,
    "WorkqueueTargetDown": nothing_listens_at_the_target,
    "WorkqueueSaturated": a_callback_hangs,
    "WorkqueueDeadLetters": callbacks_fail_for_good,
    "WorkqueueAttemptsFail": callbacks_fail_and_are_tried_again,
    "WorkqueueRetriesForEver": callbacks_fail_and_are_tried_again,
    "WorkqueueLeasesExpire": a_dispatcher_is_killed,
    "WorkqueueRunawayCallbacks": a_callback_swallows_its_cancellation,
    "WorkqueueErrorEventsLost": callbacks_fail_for_good,
    "WorkqueueLifecycleEventsLost": callbacks_fail_for_good,
    "WorkqueueEnqueuerGivesUp": an_enqueuer_loses_its_store,
    "WorkqueueEnqueuerStuck": an_enqueuer_waits_for_its_store,
    "WorkqueueSchedulesLate": nobody_fires_schedules,
    "WorkqueueTicksMissed": who_fires_schedules_hangs_for_a_while,
    "WorkqueueMessagesRefused": an_event_is_none,
    "WorkqueueRelayTargetDown": nothing_listens_at_the_target_of_a_relay,
    "WorkqueueRelayRefuses": the_store_of_a_relay_ends,
}


def alerts() -> list[str]:
    [group] = yaml.safe_load(in_seconds())["groups"]
    return [rule["alert"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def scenes(prometheus: Prometheus) -> Iterator[dict[Callable[[Scene], None], Scene]]:
    """Every cause, each with a queue of its own; they come about together, since each takes its time."""
    found: dict[Callable[[Scene], None], Scene] = {}
    try:
        for cause in dict.fromkeys([*CAUSES.values(), all_is_well]):
            found[cause] = Scene(prometheus, cause.__name__.replace("_", "-"))
            cause(found[cause])
        yield found
    finally:
        for scene in found.values():
            scene.close()


def test_there_is_a_cause_for_every_alert() -> None:
    assert sorted(CAUSES) == sorted(alerts())


@pytest.mark.timeout(400)  # the first one starts every program
@pytest.mark.parametrize("alert", alerts())
def test_an_alert_fires_for_what_it_is_about(
    alert: str, prometheus: Prometheus, scenes: dict[Callable[[Scene], None], Scene]
) -> None:
    queue = scenes[CAUSES[alert]].queue
    named = f"{queue}.schedules" if alert == "WorkqueueSchedulesLate" else queue

    eventually(f"{alert} of {named}", lambda: (alert, named) in prometheus.fired())


def long_enough(lines: list[Series]) -> list[Series]:
    """The lines of a panel, or none if one would see too little of them."""
    return lines if any(len(line.points) >= 10 for line in lines) else []


@pytest.mark.parametrize("panel", list(panels(DASHBOARD)), ids=lambda panel: str(panel["title"]))
def test_a_panel_of_the_dashboard_shows_something(
    panel: Object, prometheus: Prometheus, scenes: dict[Callable[[Scene], None], Scene]
) -> None:
    lines = eventually("answers of ten seconds", lambda: long_enough(answers(panel, prometheus.history)))

    drawn = picture(panel["title"], panel["fieldConfig"]["defaults"]["unit"], lines)
    assert 0 < drawn.count("<polyline") <= len(lines)
    if folder := os.environ.get("PICTURES"):
        name = re.sub(r"\W+", "-", panel["title"].lower())
        (Path(folder) / f"{name}.svg").write_text(drawn, encoding="utf-8")


def test_no_alert_fires_for_a_queue_that_is_well(
    prometheus: Prometheus, scenes: dict[Callable[[Scene], None], Scene]
) -> None:
    well = scenes[all_is_well].queue

    assert prometheus.query(f'workqueue_queued_keys{{queue_name="{well}"}}')  # it has been counted, and looked at
    assert [alert for alert, queue in prometheus.fired() if queue == well] == []
