"""Payloads of many keys at once: each comes back with its key, and none costs a wait for the interpreter of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tests.support.sqlite import lease, sqlite_queue
from workqueue import Options
from workqueue.backends.sqlite import rows

MIB = 1 << 20


Payloads = Mapping[int, bytes | None]


def counted(payloads: Payloads, sizes: Mapping[int, int | None]) -> tuple[Payloads, int]:
    """What is read of a table with these payloads, and of how many rows."""
    read: list[object] = []

    def note(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> tuple[object, ...]:
        read.append(row)
        return row

    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE queued (id INTEGER PRIMARY KEY, payload BLOB)")
        connection.executemany("INSERT INTO queued VALUES (?, ?)", payloads.items())
        connection.row_factory = note
        return dict(rows.payloads(connection, rows.QUEUED_PAYLOADS, sizes)), len(read)


def test_many_payloads_are_one_row_since_each_row_is_a_wait_for_the_interpreter() -> None:
    payloads: Payloads = {number: bytes([number % 256, 0]) * number for number in range(500)}

    found, read = counted(payloads, {number: 2 * number for number in payloads})

    assert found == payloads
    assert read == 1


def test_large_payloads_are_read_some_at_a_time() -> None:
    payloads: Payloads = {number: bytes(MIB) for number in range(5)}

    found, read = counted(payloads, dict.fromkeys(payloads, MIB))

    assert found == payloads
    assert read == 3


async def test_keys_get_their_own_payloads_whatever_their_sizes(tmp_path: Path) -> None:
    sizes = {"none": None, "empty": 0, "small": 10, "large": 3 * MIB, "other": 4 * MIB, "last": 20}
    payloads = {key: None if size is None else key.encode()[:1] * size for key, size in sizes.items()}
    async with sqlite_queue(tmp_path / "q.db", max_payload="4MiB") as queue:
        await queue.queue_many([(key, Options(payload=payload)) for key, payload in payloads.items()])

        listed = {key.key: key.payload for key in (await queue.enumerate(10)).queued}
        started = (await lease(queue)).started
        assert {owned.key: owned.payload for owned in started} == payloads == listed

        for owned in started:
            await owned.dead_letter("boom")
        letters = {letter.key: letter.payload async for letter in (await queue.enumerate(10)).dead_letters}
        assert letters == payloads
