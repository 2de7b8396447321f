from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from tests.support.processes import Ended
from tests.support.programs import dispatcher, workqueue
from workqueue import Options, open_queue
from workqueue.sources.schedules import schedules_url

FILE = """
[nightly]
when = "30 2 * * *"
zone = "Europe/Berlin"
key = "reports/nightly"
priority = 10
payload = "all"
meta = { team = "web" }
jitter = "30s"
missed = "skip"

[often]
when = "@every 90s"
key = "often"
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    place = f"sqlite:///{tmp_path}/workqueue.db"
    workqueue("enqueue", "k", "--queue", place)
    return place


def run(url: str, *args: str) -> Ended:
    return workqueue("schedules", *args, env={"WORKQUEUE_URL": url})


def test_a_schedule_is_added_and_listed_with_its_next_firings(url: str) -> None:
    added = run(url, "add", "nightly", "30 2 * * *", "--key", "reports/nightly", "--zone", "Europe/Berlin", "--json")

    assert (added.code, added.json["changed"], len(added.json["next"])) == (0, True, 3)
    (row,) = run(url, "ls", "--json").json
    assert (row["name"], row["when"], row["zone"], row["key"]) == (
        "nightly",
        "30 2 * * *",
        "Europe/Berlin",
        "reports/nightly",
    )
    assert row["next"] == added.json["next"]
    assert "2026-" not in run(url, "ls").err


def test_people_see_a_table(url: str) -> None:
    assert run(url, "ls").out == "there are no schedules\n"
    run(url, "add", "nightly", "@daily", "--key", "k", "--jitter", "5m")

    header, row = run(url, "ls").out.splitlines()

    assert header.split()[:3] == ["name", "when", "zone"]
    assert row.split()[:4] == ["nightly", "@daily", "UTC", "k"]


def test_adding_the_same_again_is_no_change(url: str) -> None:
    args = ("add", "s", "@daily", "--key", "k", "--meta", "a=1", "--payload", "p")
    assert [run(url, *args, "--json").json["changed"] for _ in range(2)] == [True, False]
    assert run(url, *args, "--priority", "3", "--json").json["changed"]


def test_run_now_enqueues_the_key_with_what_belongs_to_it(url: str) -> None:
    run(url, "add", "s", "@daily", "--key", "k", "--payload", '{"a": 1}', "--meta", "team=web", "--priority", "7")

    assert run(url, "run-now", "s").out == "enqueued k\n"

    state = workqueue("get", "k", "--json", env={"WORKQUEUE_URL": url}).json
    assert base64.b64decode(state["payload_base64"]) == b'{"a": 1}', "encoded once"
    assert (state["priority"], state["meta"]["team"]) == (7, "web")


def test_pausing_resuming_and_removing_say_which_they_did_not_find(url: str) -> None:
    run(url, "add", "s", "@daily", "--key", "k")
    for verb, done in (("pause", "paused"), ("resume", "resumed"), ("rm", "removed")):
        ended = run(url, verb, "s", "nobody")
        assert (ended.code, ended.out, ended.err) == (1, f"{done} 1\n", "there is no schedule nobody\n")
    assert run(url, "ls", "--json").json == []


def test_a_paused_schedule_shows_no_next_firing(url: str) -> None:
    run(url, "add", "s", "@daily", "--key", "k")
    run(url, "pause", "s")

    (row,) = run(url, "ls", "--json").json

    assert (row["paused"], row["next"]) == (True, [])


def test_a_file_is_applied_and_what_it_lacks_is_removed_only_if_asked_to(url: str, tmp_path: Path) -> None:
    file = tmp_path / "schedules.toml"
    file.write_text(FILE)
    run(url, "add", "other", "@daily", "--key", "k")

    assert run(url, "apply", str(file), "--json").json == {"changed": ["nightly", "often"], "removed": []}
    assert run(url, "apply", str(file), "--prune", "--json").json == {"changed": [], "removed": ["other"]}
    nightly, often = run(url, "ls", "--json").json
    assert (nightly["jitter"], nightly["missed"], often["when"]) == ("30s", "skip", "@every 90s")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[s]\nwhen = '@daily'\n", "schedule 's': it has no 'key'"),
        ("[s]\nwhen = '@daily'\nkey = 'k'\nwhat = 1\n", "it has 'what'"),
        ("[s]\nwhen = 1\nkey = 'k'\n", "when is a str"),
        ("[s]\nwhen = '0 0 31 2 *'\nkey = 'k'\n", "never fires"),
        ("[s]\nwhen = '@daily'\nkey = 'k'\njitter = 'soon'\n", "jitter: it takes a duration"),
        ("[s]\nwhen = '@daily'\nkey = 'k'\npriority = true\n", "priority is a int"),
        ("s = 1\n", "a schedule is a table"),
        ("[s\n", "cannot be read as TOML"),
    ],
)
def test_a_file_with_a_mistake_changes_nothing_and_names_it(url: str, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "schedules.toml"
    file.write_text("[good]\nwhen = '@daily'\nkey = 'k'\n" + text if text.startswith("[") else text)

    ended = run(url, "apply", str(file))

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert says in ended.err
    assert run(url, "ls", "--json").json == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("add", "s", "0 0 30 2 *", "--key", "k"), "never fires"),
        (("add", "s", "every day", "--key", "k"), "five cron fields"),
        (("add", "s", "@daily"), "--key: say which key"),
        (("add", "s", "@daily", "--key", "k", "--zone", "Mars"), "no time zone 'Mars'"),
        (("add", "s", "@daily", "--key", "k", "--missed", "some"), "--missed: it takes once, skip or all"),
        (("add", "s", "@daily", "--key", "k", "--payload", "a", "--payload-file", __file__), "give one of them"),
    ],
)
def test_what_cannot_be_is_one_line(url: str, args: tuple[str, ...], says: str) -> None:
    ended = run(url, *args)

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert says in ended.err


def test_a_definition_that_cannot_be_read_is_listed_with_its_problem(url: str) -> None:
    async def arrange() -> None:
        async with open_queue(schedules_url(url)) as queue:
            await queue.queue("odd", Options(payload=b"{}"))

    asyncio.run(arrange())

    assert "cannot be read" in run(url, "ls").out


def test_a_file_for_a_dispatcher_goes_with_firing() -> None:
    ended = dispatcher("run", "--callback", "tests.support.reconcilers:complete", "--schedules-file", "x.toml")

    assert ended.code == 2
    assert "goes with --schedules" in ended.err


@pytest.mark.parametrize(
    ("queue", "beside"),
    [
        ("sqlite:///wq.db", "sqlite:///wq.db?name=default.schedules"),
        ("sqlite:////a/b.db?name=x&lease=3s", "sqlite:////a/b.db?name=x.schedules&lease=3s"),
        ("redis://h:1/0?name=builds", "redis://h:1/0?name=builds.schedules"),
        ("gs://b", "gs://b/schedules"),
        ("gs://b/p/?refresh=0s", "gs://b/p/schedules?refresh=0s"),
    ],
)
def test_schedules_lie_beside_the_queue_that_they_feed(queue: str, beside: str) -> None:
    assert schedules_url(queue) == beside
