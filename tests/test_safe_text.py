"""How text from elsewhere is shown: cut, described, made harmless."""

from __future__ import annotations

import random
from datetime import timedelta
from urllib.parse import quote

import grpc
import pytest

from workqueue.backends.url import QueueURL
from workqueue.safe_text import cut, describe, shown_duration, shown_url, visible


class HopelessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("duration", "shown"),
    [
        (timedelta(seconds=37.61926), "37.6 s"),
        (timedelta(minutes=9, seconds=48), "9.8 min"),
        (timedelta(hours=2), "2.0 h"),
        (timedelta(days=7), "7.0 d"),
    ],
    ids=["seconds", "minutes", "hours", "days"],
)
def test_a_duration_is_shown_in_the_unit_that_suits_it(duration: timedelta, shown: str) -> None:
    assert shown_duration(duration) == shown


@pytest.mark.parametrize("text", ["x" * 5000, "é" * 5000, "🦊" * 5000, "a" + "🦊" * 5000])
def test_long_texts_are_cut_at_a_character_and_say_so(text: str) -> None:
    short = cut(text, 1024)

    assert 1019 <= len(short.encode()) <= 1024
    assert short.endswith("…")
    assert text.startswith(short[:-1])
    assert cut("x" * 1024, 1024) == "x" * 1024


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (HopelessError(), "HopelessError"),
        (
            grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone", None),
            "NOT_FOUND: gone",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_is_described_by_its_class_or_status_and_its_text(error: BaseException, text: str) -> None:
    assert describe(error) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a key/with-all: that is #harmless, 日本語 é 🦊", "a key/with-all: that is #harmless, 日本語 é 🦊"),
        ("two\nlines\r\x1b[2J", r"two\nlines\r\x1b[2J"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u200bb\ufeff\u2066", r"a\u200bb\ufeff\u2066"),
        ("\u2028\x85\ud800", r"\u2028\x85\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_would_move_hide_or_reorder_text_is_shown_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


HIDDEN = [
    ("redis://app:hunter2@h/0", "redis://app:***@h/0"),
    ("REDISS://app:hunter2@h/0", "REDISS://app:***@h/0"),
    ("redis://:hunter2@h", "redis://:***@h"),
    ("redis://hunter2@h", "redis://***@h"),
    ("redis://app%3Ahunter2@h", "redis://***@h"),
    ("redis://app:hunter2/x@h/0", "redis://app:***@h/0"),
    ("redis://app:1/hunter2@h/0", "redis://***"),
    ("redis://app:hunter2?x@h/0", "redis://app:***@h/0"),
    ("redis://app:1?hunter2@h", "redis://***"),
    ("redis://app:x?hunter2=b@h", "redis://app:***@h"),
    ("redis://app:hunter2#x@h/0", "redis://app:***@h/0"),
    ("redis://app:h@hunter2@h/0", "redis://app:***@h/0"),
    ("redis://a:hunter2@h1,b:hunter2@h2/0", "redis://a:***@h2/0"),
    ("redis://app:hunter2", "redis://app:***"),
    ("redis://app:hunter2@[::1/0", "redis://app:***@[::1/0"),
    ("redis:///app:hunter2@h", "redis:///app:***@h"),
    ("redis:/app:hunter2@h", "***"),
    ("app:hunter2@h/0", "app:***@h/0"),
    ("redis://app:\nhunter2@h", "redis://app:***@h"),
    ("redis+sentinel://h1:1,h2:2/m/0?sentinel_password=hunter2&name=a", "redis+sentinel://h1:1,h2:2/m/0?sentinel_password=***&name=a"),
    ("rediss://h/0?Sentinel%5FPassword=hunter2", "rediss://h/0?Sentinel%5FPassword=***"),
    ("https://h/p?token=hunter2", "https://h/p?token=***"),
    ("https://h/p?X-Amz-Signature=hunter2", "https://h/p?X-Amz-Signature=***"),
    ("grpc://u:hunter2@h:1", "grpc://u:***@h:1"),
    ("gs://u:hunter2@bucket", "gs://u:***@bucket"),
    ("sqlite://u:hunter2@h/q.db", "sqlite://u:***@h/q.db"),
    ("sqs://h/1/q?endpoint=http://u:hunter2@e", "sqs://h/1/q?endpoint=***"),
    ("sqs://h/1/q?endpoint=http%3A%2F%2Fu%3Ahunter2%40e", "sqs://h/1/q?endpoint=***"),
    ("redis://h/0?password=a&hunter2", "redis://h/0?password=***&***"),
    ("redis://h/0?name=a&hunter2=b", "redis://h/0?name=a&***"),
    ("redis://h/0?name=a?password=hunter2", "redis://h/0?name=***"),
    ("redis://h/0;password=hunter2", "redis://h/0***"),
    ("redis://h/0#password=hunter2", "redis://h/0#***"),
    ("redis://h/0?name=a#hunter2", "redis://h/0?name=a#***"),
    ("redis://u%3Ahunter2%40h/0", "redis://***/0"),
    ("redis://u:hunter2%40h/0", "redis://u:***/0"),
    ("redis%3A//u:hunter2@h", "redis%3A//u:***@h"),
    ("redis://u:hunter2＠h", "redis://u:***"),
    ("gs://b?endpoint=u:hunter2@h", "gs://b?endpoint=***"),
    ("redis://h/0#x@hunter2", "redis://***"),
    ("https://h/?code=hunter2", "https://h/?***"),
    ("https://h/?next=https%253A%252F%252Fu%253Ahunter2%2540h", "https://h/?***"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "shown"), HIDDEN)
def test_a_url_is_shown_without_its_password_however_it_is_spelled(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:6379/0?name=a",
        "redis+cluster://h1,h2:2,[::1]:3?name=builds",
        "sqlite:////data/me@work/q.db?mode=0660",
        "https://broker/path/to",
        "gs://bucket?impersonate=me@project.iam.gserviceaccount.com&lease=15m",
        "sqs://h/1/q?endpoint=http://localhost:9324",
        "gs://bucket/prefix",
        "memory://",
        "workqueue.db",
    ],
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert shown_url(url) == url


FORMS = [
    "{scheme}u:{password}@{host}/0",
    "{scheme}:{password}@{host}",
    "{scheme}{host}/0?token={password}",
    "{scheme}{host}/0?code={password}",
    "{scheme}{host}/0?name=a&password={password}&lease=3s",
    "{scheme}{host}/0?endpoint=http://u:{password}@e",
    "{scheme}{host}/0#{password}",
]


@pytest.mark.parametrize("form", FORMS)
def test_no_spelling_of_a_password_shows_it(form: str) -> None:
    draw = random.Random(form)
    for _ in range(2000):
        noise = ["".join(draw.choices("a1:/?#&=%;@,[] .-_é+", k=draw.randrange(5))) for _ in range(2)]
        password = f"{noise[0]}hunter2{noise[1]}"
        scheme = draw.choice(["redis://", "gs://", "https://", "grpc://", "redis+sentinel://", "sqs://", "redis:/", ""])
        host = draw.choice(["h", "h:1", "h1,h2:3", "[::1]", "a.b.c"])
        url = form.format(
            scheme=scheme, host=host, password=draw.choice([password, quote(password), quote(password, "")])
        )

        assert "hunter2" not in shown_url(url), url


def test_a_parsed_url_does_not_show_its_password_either() -> None:
    assert repr(QueueURL.parse("redis://app:hunter2@h/0?name=a")) == "QueueURL('redis://app:***@h/0?name=a')"
