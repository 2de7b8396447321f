"""Redis URLs: every form and setting, and one line for each that cannot be."""

from __future__ import annotations

from datetime import timedelta

import pytest

from workqueue import open_queue
from workqueue.backends.redis.address import Address, RedisSettings
from workqueue.backends.url import QueueURL
from workqueue.errors import InvalidSettingError

CANNOT_BE_READ = (
    "the queue URL cannot be read: percent-encode [ and ] and characters that are no ASCII in its user, "
    "password and host"
)


def settings(url: str) -> RedisSettings:
    return RedisSettings.from_url(QueueURL.parse(url), "builds")


@pytest.mark.parametrize(
    ("url", "hosts", "master", "db"),
    [
        ("redis://", [("localhost", 6379)], "", 0),
        ("redis://redis.example", [("redis.example", 6379)], "", 0),
        ("redis://redis.example:7000/3", [("redis.example", 7000)], "", 3),
        ("rediss://[::1]:7000", [("::1", 7000)], "", 0),
        ("redis://[::1]", [("::1", 6379)], "", 0),
        ("redis+sentinel://a,b:27000/main", [("a", 26379), ("b", 27000)], "main", 0),
        ("redis+sentinel://a/my%2Fmaster/2", [("a", 26379)], "my/master", 2),
        ("redis+unix:///run/redis.sock?db=3", [("/run/redis.sock", 0)], "", 3),
        ("redis+cluster://a:1,b:2,c", [("a", 1), ("b", 2), ("c", 6379)], "", 0),
    ],
)
def test_a_url_says_where(url: str, hosts: list[tuple[str, int]], master: str, db: int) -> None:
    found = settings(url)

    assert (list(found.hosts), found.master, found.db) == ([Address(*host) for host in hosts], master, db)


def test_a_url_says_who() -> None:
    found = settings("redis+sentinel://me:p%40ss@a/main?sentinel_username=you&sentinel_password=other")

    assert (found.username, found.password) == ("me", "p@ss")
    assert (found.for_sentinels().username, found.for_sentinels().password) == ("you", "other")
    assert "p@ss" not in repr(found)
    assert "other" not in repr(found)


def test_a_url_says_how() -> None:
    found = settings(
        "redis+cluster://a?tls=true&tls_ca=ca.pem&tls_cert=me.pem&tls_key=me.key&timeout=2s&wait_replicas=2"
    )

    assert (found.tls, found.tls_ca, found.tls_cert, found.tls_key) == (True, "ca.pem", "me.pem", "me.key")
    assert (found.timeout, found.wait_replicas) == (timedelta(seconds=2), 2)
    assert settings("rediss://a").tls
    assert not settings("redis://a").tls


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("redis://a,b", "redis:// takes one host; several go with redis+sentinel or redis+cluster"),
        ("redis://a:port", "'a:***' in the queue URL is no host or host:port"),
        ("redis://a:70000", "'a:70000' in the queue URL is no host or host:port"),
        ("redis://a/main", "the path of 'redis://a/main' is no database number, such as /0"),
        ("redis+sentinel://a", "redis+sentinel:// names its master in the path: redis+sentinel://h1,h2/mymaster/0"),
        ("redis+sentinel://a/main/x", "the path of 'redis+sentinel://a/main/x' is no database number, such as /0"),
        ("redis+unix://a", "redis+unix:// names a socket: redis+unix:///run/redis/redis.sock?db=0"),
        ("redis+unix://", "redis+unix:// names a socket: redis+unix:///run/redis/redis.sock?db=0"),
        ("redis://a?password_file=/nowhere", "password_file=/nowhere in the queue URL: there is no such file"),
        ("redis://:x@a?password_file=/y", "the queue URL has a password and a password_file; give one of them"),
        ("redis://:s[cret@a", CANNOT_BE_READ),
        ("redis://:secret@a\u2100b", CANNOT_BE_READ),
        ("redis://:secret@[::1/0", CANNOT_BE_READ),
        ("redis+cluster://a/1", "a Redis Cluster has only database 0"),
        ("redis://a?wait_replicas=some", "wait_replicas=some in the queue URL: it takes a number, 0 or more"),
        ("redis://a?tls=yes", "tls=yes in the queue URL: it takes true or false"),
        (
            "redis://a?timeout=5",
            "timeout=5 in the queue URL: it takes a duration above zero such as 500ms, 15s, 5m or 1h",
        ),
        ("redis://a?pool=3", "redis:// has no setting pool; docs/backends.md lists them"),
    ],
)
def test_what_cannot_be_is_refused_with_one_line(url: str, line: str) -> None:
    with pytest.raises(InvalidSettingError) as refused:
        open_queue(url)

    assert str(refused.value) == line
