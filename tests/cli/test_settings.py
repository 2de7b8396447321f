from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from tests.support.programs import dispatcher, workqueue
from workqueue import __version__
from workqueue.errors import InvalidSettingError
from workqueue.programs.converters import spoken
from workqueue.programs.settings import queue_url

WRONG = [
    (["enqueue"], "name at least one key"),
    (["enqueue", "k", "--priority", "high"], "--priority: it takes a whole number"),
    (["enqueue", "k", "--priority", "9" * 20], "--priority: it takes a whole number"),
    (["enqueue", "k", "--delay", "0s"], "--delay: it takes a duration above zero"),
    (["enqueue", "k", "--delay", "-1s"], "--delay: it takes a duration above zero"),
    (["enqueue", "k", "--not-before", "2030-01-01T00:00:00"], "--not-before: it takes an ISO 8601 time with a zone"),
    (["enqueue", "k", "--not-before", "2030-01-01T00:00:00Z", "--delay", "1s"], "give one of them"),
    (["enqueue", "k", "--floor"], "--floor holds a time"),
    (["enqueue", "k", "--meta", "colour"], "--meta: it takes name=value"),
    (["enqueue", "k", "--payload-file", "/does/not/exist"], "--payload-file: it takes a file that can be read"),
    (["enqueue", "k", "--payload", "a", "--payload-file", __file__], "give one of them"),
    (["enqueue", "k", "--queue", "carrier-pigeon://"], "no queue URL"),
    (["enqueue", "k", "--queue", "memory://"], "lives inside one process"),
    (["enqueue", "k", "--colour", "red"], "--colour"),
    (["enqeue", "k"], "Did you mean 'enqueue'"),
    (["ls", "--limit", "0"], "--limit: it takes a whole number, from 1"),
    (["release", "k"], "--force"),
    (["configure", "--concurrency", "0"], "--concurrency: it takes a whole number, 1 or more"),
    (["configure", "--concurrency", "3", "--clear", "concurrency"], "give one of them"),
    (["configure", "--starts-per-second", "0"], "--starts-per-second: it takes a number above zero"),
    (["configure", "--clear", "everything"], "--clear: it takes concurrency or starts-per-second"),
    (["dead-letters", "redrive"], "say which dead letters in one way"),
    (["dead-letters", "drop", "k", "--all"], "say which dead letters in one way"),
    (["dead-letters", "redrive", "--prefix", "a", "--all"], "say which dead letters in one way"),
    (["dead-letters", "redrive", "--all", "--rate", "fast"], "--rate: it takes a rate above zero"),
]


@pytest.mark.parametrize(("args", "says"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_wrong_setting_ends_with_2_and_one_line_that_names_it(args: Sequence[str], says: str) -> None:
    ended = workqueue(*args)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("workqueue: ")
    assert says in ended.err


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"WORKQUEUE_JSON": "maybe"}, "WORKQUEUE_JSON"),  # typer 0.28 reads and words this one itself
        ({"WORKQUEUE_LS_LIMIT": "many"}, "--limit: it takes a whole number"),
        ({"WORKQUEUE_MODE": "punchcards"}, "WORKQUEUE_MODE: it takes gcs or inmem"),
        ({"WORKQUEUE_MODE": "gcs"}, "WORKQUEUE_BUCKET"),
        ({"WORKQUEUE_BUCKET": "keys"}, "WORKQUEUE_MODE=gcs"),
        ({"WORKQUEUE_URL": "sqlite:///a.db", "WORKQUEUE_MODE": "gcs", "WORKQUEUE_BUCKET": "b"}, "name two queues"),
    ],
)
def test_a_wrong_environment_variable_is_named_too(env: dict[str, str], says: str) -> None:
    ended = workqueue("ls", env=env)

    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert says in ended.err


def test_a_flag_overrules_what_the_environment_says_about_the_queue() -> None:
    assert queue_url("redis://here", {"WORKQUEUE_URL": "redis://there", "WORKQUEUE_MODE": "inmem"}) == "redis://here"


def test_the_variables_of_the_go_programs_choose_the_queue() -> None:
    assert queue_url(None, {"WORKQUEUE_MODE": "gcs", "WORKQUEUE_BUCKET": "keys"}) == "gs://keys"
    assert queue_url(None, {"WORKQUEUE_MODE": "inmem"}) == "memory://"


def test_two_variables_that_name_one_queue_are_no_contradiction() -> None:
    both = {"WORKQUEUE_URL": "gs://keys", "WORKQUEUE_MODE": "gcs", "WORKQUEUE_BUCKET": "keys"}

    assert queue_url("gs://keys", both) == "gs://keys"


def test_a_contradiction_names_both_variables() -> None:
    with pytest.raises(InvalidSettingError, match="WORKQUEUE_URL and WORKQUEUE_MODE"):
        queue_url("redis://there", {"WORKQUEUE_URL": "redis://there", "WORKQUEUE_MODE": "inmem"})


def test_help_is_shown_when_nothing_is_asked() -> None:
    assert workqueue().out == workqueue("--help").out
    assert "Exit codes: 0 done" in workqueue("--help").out


@pytest.mark.parametrize(("seconds", "text"), [(0.5, "500ms"), (15, "15s"), (90, "90s"), (120, "2m"), (86400, "1d")])
def test_a_default_duration_is_spoken_as_it_would_be_given(seconds: float, text: str) -> None:
    assert spoken(timedelta(seconds=seconds)) == text


def test_the_release_is_told_when_asked_and_not_because_of_a_variable() -> None:
    assert workqueue("--version").out == f"{__version__}\n"
    assert __version__.count(".") >= 1
    assert "Usage" in workqueue("--help", env={"WORKQUEUE_VERSION": "1.2"}).out


def test_a_password_in_a_url_is_not_shown() -> None:
    ended = workqueue("ls", "--queue", "rediss://user:secret@host/0?name=a&name=b")

    assert ended.code == 2
    assert "rediss://user:***@host/0" in ended.err
    assert "secret" not in ended.err


SPELLINGS = [
    "redis://app:hunter2/x@h/0",
    "redis://app:hunter2?x@h/0",
    "redis://app:hunter2#x@h/0",
    "redis://app:hunter2@h:port/0",
    "redis://app:hunter2@h/database",
    "redis://app:hunter2@h/0?colour=red",
    "redis://app:hunter2@h/0?lease=soon",
    "redis://app:hunter2@[::1/0",
    "redis://app:hunter2@h1,h2/0",
    "redis+cluster://app:hunter2@h/1",
    "redis+sentinel://h/?sentinel_password=hunter2",
    "redis+sentinel://h/m/0?sentinel_pasword=hunter2",
    "rediss:/app:hunter2@h",
    "app:hunter2@h",
    "carrier-pigeon://app:hunter2@h",
    "gs://app:hunter2@bucket",
    "sqlite://app:hunter2@h/q.db",
    "grpc://app:hunter2@h:1",
    "https://app:hunter2@h",
    "http://h?token=hunter2",
    "sqs://app:hunter2@h",
    "sqs://h/1/q?endpoint=app:hunter2@h",
]


@pytest.mark.parametrize("url", SPELLINGS)
@pytest.mark.parametrize(
    "command",
    [
        ["ls", "--queue"],
        ["enqueue", "k", "--patience", "1ms", "--queue"],
        ["hyperqueue", "--shards"],
        ["stats", "--queue"],
    ],
    ids=lambda command: command[0],
)
def test_no_error_shows_a_password(command: Sequence[str], url: str) -> None:
    ended = workqueue(*command, url)

    assert ended.code != 0
    assert "hunter2" not in ended.err


@pytest.mark.parametrize("url", SPELLINGS)
@pytest.mark.parametrize("flag", ["--target", "--events-url", "--oidc-issuer", "--oidc-jwks-url", "--queue"])
def test_no_error_of_a_dispatcher_shows_a_password(flag: str, url: str) -> None:
    called = [] if flag == "--target" else ["--callback", "tests.support.reconcilers:complete"]
    oidc = ["--oidc-audience", "https://me"] if "oidc" in flag else []
    issuer = ["--oidc-issuer", "https://issuer.example"] if flag == "--oidc-jwks-url" else []
    ended = dispatcher("run", *called, *oidc, *issuer, flag, url, "--http-port", "0", "--host", "192.0.2.1")

    assert ended.code != 0
    assert "hunter2" not in ended.err
