"""The keys that wait to be sent: duplicates merge as a store would merge them, and none overtakes itself."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from workqueue.enqueuer.buffer import Buffer, merged
from workqueue.errors import InvalidKeyError
from workqueue.options import MAX_META_BYTES, Options

NOON, LATER = datetime(2030, 1, 1, 12, tzinfo=UTC), datetime(2030, 1, 1, 13, tzinfo=UTC)


@pytest.mark.parametrize(
    ("waiting", "newer", "expected"),
    [
        (Options(priority=5), Options(priority=3), Options(priority=5)),
        (Options(payload=b"old"), Options(payload=b"new"), Options(payload=b"new")),
        (Options(payload=b"old"), Options(), Options(payload=b"old")),
        (Options(meta={"a": "1", "b": "1"}), Options(meta={"b": "2"}), Options(meta={"a": "1", "b": "2"})),
        (Options(not_before=NOON), Options(not_before=LATER), Options(not_before=NOON)),
        (Options(not_before=NOON), Options(), Options()),
        (Options(not_before=LATER, not_before_floor=True), Options(), Options(not_before=LATER, not_before_floor=True)),
        (
            Options(not_before=NOON),
            Options(not_before=LATER, not_before_floor=True),
            Options(not_before=LATER, not_before_floor=True),
        ),
    ],
    ids=["priority", "payload", "no payload", "meta", "earlier", "at once", "floor stays", "floor comes"],
)
def test_what_is_put_twice_is_merged_as_a_store_does(waiting: Options, newer: Options, expected: Options) -> None:
    assert merged(waiting, newer) == expected


def test_two_metas_that_are_too_large_together_are_not_merged() -> None:
    half = "x" * (MAX_META_BYTES // 2)

    assert merged(Options(meta={"a": half}), Options(meta={"b": half})) is None


def test_a_key_counts_once_however_often_it_is_put() -> None:
    buffer = Buffer(10)

    assert [buffer.take("a", Options()), buffer.take("a", Options(priority=1)), buffer.take("a", Options())] == [
        True,
        False,
        False,
    ]
    assert (len(buffer), buffer.ready) == (1, {"a": Options(priority=1)})


def test_a_full_buffer_takes_only_what_it_has() -> None:
    buffer = Buffer(1)
    buffer.take("a", Options())

    assert buffer.take("b", Options()) is None
    assert buffer.take("a", Options(priority=1)) is False


def test_an_invalid_key_takes_no_room() -> None:
    buffer = Buffer(1)

    with pytest.raises(InvalidKeyError):
        buffer.take("", Options())
    assert buffer.take("a", Options()) is True


def test_a_key_that_is_put_while_it_is_on_its_way_waits_until_it_has_landed() -> None:
    buffer = Buffer(10)
    buffer.take("a", Options(payload=b"1"))
    first = buffer.launch(10)
    buffer.take("a", Options(payload=b"2"))
    assert buffer.launch(10) == {}

    buffer.landed(first)

    assert buffer.launch(10) == {"a": Options(payload=b"2")}
