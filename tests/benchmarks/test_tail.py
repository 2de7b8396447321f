"""What was noted of a key is put together to its way, and the slowest ways are looked at by themselves."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.contenders.notes import Kind, Note, Notes, read, since_before
from benchmarks.tail_parts import STATIONS, Part, Way, beside_table, parts_table, slowest, ways
from tests.support.processes import python

US = 1000


def note(kind: Kind, at: int, about: int = 0, ran: int = 0, waited: int = 0, switched: int = 0) -> Note:
    """One at so many microseconds; what is counted is, too, and since the process began."""
    return Note(kind, at * US, about, ran * US, waited * US, switched)


PRODUCER = [
    note(Kind.REDIS, 90, ran=1000, waited=5),
    note(Kind.CALLED, 100, about=7),
    note(Kind.ENQUEUE_SENT, 150, ran=40),
    note(Kind.ENQUEUED, 300, ran=60),
]
DISPATCHER = [
    note(Kind.OTHER_ANSWERED, 10),
    note(Kind.WOKEN, 400, ran=20, waited=80),
    note(Kind.GC_1, 430, about=25 * US, ran=45, waited=80),
    note(Kind.WAIT_RETURNED, 450, ran=60, waited=80),
    note(Kind.LEASE_SENT, 500, ran=100, waited=80),
    note(Kind.LEASE_ANSWERED, 700, ran=110, waited=90, switched=1),
    note(Kind.LEASED, 740, ran=150, waited=90, switched=1),
    note(Kind.STEPPED, 780, ran=190, waited=90, switched=1),
    note(Kind.STARTED, 800, about=7, ran=200, waited=90, switched=1),
    note(Kind.REDIS, 810, ran=1150, waited=8),
]


def way(number: int, **took: float) -> Way:
    parts = {Kind[name]: Part(microseconds) for name, microseconds in took.items()}
    return Way(number, parts, beside={}, producer_first=False, switched=0, redis=Part(0))


def lines(table: Table) -> list[str]:
    console = Console(width=200, file=StringIO())
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def cells(table: Table, text: str) -> list[str]:
    line = next(line for line in lines(table) if text in line)
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


def test_a_way_has_a_part_for_each_station() -> None:
    (found,) = ways([note(Kind.CALLED, 0, about=6), *PRODUCER], DISPATCHER)

    assert [part.took for part in found.parts.values()] == [50, 250, 50, 50, 200, 40, 40, 20]
    assert found.parts.keys() == STATIONS.keys()
    assert found.took == 700


def test_a_part_has_what_the_process_did_that_passes_the_station() -> None:
    (found,) = ways([note(Kind.CALLED, 0, about=6), *PRODUCER], DISPATCHER)

    assert found.parts[Kind.ENQUEUE_SENT] == Part(50, ran=40, waited=0)
    assert found.parts[Kind.WOKEN] == Part(250, ran=20, waited=80)
    assert found.parts[Kind.WAIT_RETURNED] == Part(50, ran=40, waited=0)
    assert found.redis == Part(700, ran=150, waited=3)


def test_a_way_has_what_else_ran_meanwhile() -> None:
    (found,) = ways([note(Kind.CALLED, 0, about=6), *PRODUCER], DISPATCHER)

    assert found.beside == {Kind.GC_1: 25}
    assert found.switched == 1
    assert found.producer_first


def test_the_time_without_a_wake_up_counts_to_the_next_station() -> None:
    awake = [noted for noted in DISPATCHER if noted.kind != Kind.WOKEN]

    (found,) = ways([note(Kind.CALLED, 0, about=6), *PRODUCER], awake)

    assert Kind.WOKEN not in found.parts
    assert found.parts[Kind.WAIT_RETURNED].took == 300
    assert found.took == 700
    assert not found.producer_first


def test_one_in_a_hundred_is_slowest() -> None:
    found = [way(number, STARTED=number) for number in range(300)]

    assert [slow.number for slow in slowest(found)] == [297, 298, 299]
    assert [slow.number for slow in slowest(found[:5])] == [4]


def test_the_table_says_which_part_of_the_slowest_was_longest_and_which_was_most_above_usual() -> None:
    usual = [way(number, WOKEN=500, LEASED=10) for number in range(99)]

    table = parts_table([*usual, way(99, WOKEN=510, LEASED=200)])

    assert cells(table, STATIONS[Kind.WOKEN]) == ["500 / 510", "0 / 0", "0 / 0", "1", "0"]
    assert cells(table, STATIONS[Kind.LEASED]) == ["10 / 200", "0 / 0", "0 / 0", "0", "1"]
    assert cells(table, "from the call")[0] == "510 / 710"


def test_the_table_says_what_happened_meanwhile_more_often_to_the_slowest() -> None:
    (slow,) = ways([note(Kind.CALLED, 0, about=6), *PRODUCER], DISPATCHER)

    table = beside_table([*(way(number, WOKEN=5) for number in range(99)), slow])

    assert cells(table, "generation 1") == ["1.0%", "100.0%", "25"]
    assert cells(table, "generation 2") == ["0.0%", "0.0%", "0"]
    assert cells(table, "lost its core")[:2] == ["1.0%", "100.0%"]


def test_notes_can_be_read_while_their_process_goes_on(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes", os.getpid())

    notes.add(Kind.CALLED, 5)
    notes.add_redis()
    first, second = read(tmp_path / "notes")

    assert (first.kind, first.about, second.kind) == (Kind.CALLED, 5, Kind.REDIS)
    assert 0 < first.at <= second.at
    assert second.ran > 0


def test_every_function_that_is_wrapped_is_there(tmp_path: Path) -> None:
    env = {"BENCHMARK_NOTES": str(tmp_path), "BENCHMARK_REDIS_PID": str(os.getpid())}

    python("-c", "import benchmarks.contenders.traced", env=env)

    assert len([*tmp_path.iterdir()]) == 1


def test_what_is_counted_since_the_beginning_becomes_what_was_counted_since_the_note_before() -> None:
    first, second = since_before(PRODUCER[1:])

    assert (first.ran, second.ran) == (40 * US, 20 * US)
