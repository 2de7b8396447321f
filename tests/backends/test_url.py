"""Queue URLs: settings are typed, and nothing unknown or misspelt is passed over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from workqueue.backends import open_queue
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.backends.url import QueueURL, duration, size, switch
from workqueue.errors import InvalidSettingError
from workqueue.lease import LeaseTimes


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("15s", 15), ("1.5m", 90), ("1h", 3600), ("2d", 172800), ("0.001s", 0.001)]
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "15", "0s", "0.0h", "-5s", "5 s", "5S", "s", "1e3s", "5s ", "5\n", "٣s", "inf", "0.0001ms", "9" * 30 + "d"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(text)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("4096", 4096), ("64KiB", 65536), ("1MiB", 1 << 20)])
def test_a_size_may_have_a_unit(text: str, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize("text", ["", "-1", "1KB", "1.5MiB", "x"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="bytes"):
        size(text)


def test_a_switch_is_true_or_false() -> None:
    assert (switch("true"), switch("false")) == (True, False)
    for text in ("", "1", "True", "yes"):
        with pytest.raises(ValueError, match="true or false"):
            switch(text)


@pytest.mark.parametrize(
    ("query", "times"),
    [
        ("", LeaseTimes(timedelta(seconds=15), timedelta(seconds=5))),
        ("?lease=30s", LeaseTimes(timedelta(seconds=30), timedelta(seconds=10))),
        ("?lease=15s", LeaseTimes(timedelta(seconds=15), timedelta(seconds=5))),
        ("?renew=1s", LeaseTimes(timedelta(seconds=15), timedelta(seconds=1))),
        ("?lease=1m&renew=2s", LeaseTimes(timedelta(seconds=60), timedelta(seconds=2))),
    ],
)
def test_a_lease_is_renewed_after_a_third_of_it_unless_told_otherwise(query: str, times: LeaseTimes) -> None:
    assert QueueURL.parse(f"memory://{query}").lease_times() == times


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "no queue URL"),
        ("memory", "no queue URL"),
        ("memory:", "no queue URL"),
        ("http://localhost", "no queue URL"),
        ("/var/lib/queue.db", "no queue URL"),
        ("memory://?leese=15s", "no setting leese"),
        ("memory://?a=1&b=2", "a, b"),
        ("memory://?lease=15s&lease=20s", "twice"),
        ("memory://?lease=15", "lease=15 in the queue URL"),
        ("memory://?lease=15s&renew=10s", "at most half"),
        ("memory://?name=a b", r"name=\*\*\* in the queue URL: it takes 1 to 100 letters"),
        ("memory://?name=" + "x" * 101, "100 letters"),
        ("memory://?name=", "name="),
        ("memory://?max_payload=much", "max_payload=much"),
    ],
)
def test_a_bad_url_is_refused_and_says_why(url: str, told: str) -> None:
    with pytest.raises(InvalidSettingError, match=told):
        open_queue(url)


def test_a_url_makes_the_queue_it_describes() -> None:
    queue = open_queue("memory://?name=builds&lease=30s&max_payload=1KiB", owner="blue")

    assert isinstance(queue, MemoryQueue)
    assert (queue.name, queue.owner, queue.max_payload) == ("builds", "blue", 1024)
    assert queue.lease_times.duration == timedelta(seconds=30)


TIMEOUTS = {
    "sqlite:///a.db": "busy_timeout",
    "redis://h/0": "timeout",
    "redis+sentinel://h/m/0": "timeout",
    "redis+cluster://h": "timeout",
    "gs://bucket": "timeout",
}


@pytest.mark.parametrize(("place", "setting"), TIMEOUTS.items())
def test_a_store_may_not_take_longer_to_answer_than_a_lease_is_good_for(place: str, setting: str) -> None:
    with pytest.raises(InvalidSettingError, match=f"^{setting}=10s .* 9s with lease=10s$"):
        open_queue(f"{place}?lease=10s&{setting}=10s")
    open_queue(f"{place}?lease=10s&{setting}=9s")


@pytest.mark.parametrize(("place", "setting"), TIMEOUTS.items())
def test_the_default_of_a_stores_timeout_follows_a_short_lease(place: str, setting: str) -> None:
    url = QueueURL.parse(f"{place}?lease=2s")
    lease = url.lease_times()

    assert url.timeout(setting, timedelta(seconds=10), lease) == timedelta(seconds=1.8)
    open_queue(f"{place}?lease=2s")
