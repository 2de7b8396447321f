"""What is drawn of the last hour, and how a payload is shown: pure, by tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from workqueue.optional import Counts
from workqueue.web.console.charts import HEIGHT, WIDTH, Chart, charts_of
from workqueue.web.console.history import History, Sample
from workqueue.web.console.payloads import MOST_BYTES, shown_payload

NOW = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)


def history(*queued: int | None, period: timedelta = timedelta(minutes=10)) -> History:
    """Samples of these counts up to now; None = the store did not answer."""
    kept = History(period)
    for index, number in enumerate(queued):
        counts = None if number is None else Counts(queued=number)
        kept.add(Sample(NOW - period * (len(queued) - 1 - index), counts))
    return kept


def test_a_line_ends_now_at_the_top_of_its_scale() -> None:
    chart = charts_of(history(0, 5, 10), NOW)[0]

    last = chart.lines[-1].split()[-1]
    assert last == f"{WIDTH:.1f},2.0"
    assert chart.lines[-1].split()[0] == f"{WIDTH * 2 / 3:.1f},{HEIGHT - 2:.1f}"
    assert (chart.last, chart.most) == (10, 10)


def test_a_line_is_broken_where_the_store_did_not_answer() -> None:
    chart = charts_of(history(1, 1, None, 1, 1), NOW)[0]

    assert [len(line.split()) for line in chart.lines] == [2, 2]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1.3333, "1.33"), (0.05, "0.05"), (99.95, "100"), (12345.6, "12,346")],
)
def test_a_figure_is_short_and_never_a_power_of_ten(value: float, shown: str) -> None:
    assert Chart("c", [], value, value).figures == (shown, shown)


def test_failures_are_what_neither_completed_nor_was_handed_back() -> None:
    kept = history(1)
    kept.add(Sample(NOW, Counts(), 2.0, {"completed": 1.5, "retried": 0.25, "dead-lettered": 0.25, "released": 9.0}))

    last = {chart.title: chart.last for chart in charts_of(kept, NOW)}

    assert (last["starts a second"], last["ends a second"], last["failures a second"]) == (2.0, 11.0, 0.5)


def test_nothing_known_is_an_empty_chart() -> None:
    chart = charts_of(History(timedelta(seconds=5)), NOW)[0]

    assert (chart.lines, chart.last, chart.most) == ([], None, 0)
    assert chart.spoken == "eligible: unknown now, at most 0 in the last hour"


def test_an_hour_of_samples_is_kept_and_no_more() -> None:
    kept = history(*range(1000), period=timedelta(seconds=5))

    assert len(kept.samples) == 721
    assert kept.since == NOW - timedelta(hours=1)


@pytest.mark.parametrize(
    ("queued", "rate"),
    [((), None), ((5,), None), ((0, 30), 3.0), ((30, 0), -3.0), ((0, None, 40), 2.0), ((None, None), None)],
)
def test_how_fast_a_count_grows_is_known_from_two_samples(queued: tuple[int | None, ...], rate: float | None) -> None:
    assert history(*queued, period=timedelta(seconds=10)).change_per_second("queued") == rate


@pytest.mark.parametrize(
    ("payload", "kind", "text"),
    [
        (b"", "text", ""),
        (b"plain\ttext\r\nof lines", "text", "plain    text\nof lines"),
        (
            b'{"a":[1.10,{"b":[]}],"a":"x,{y}"}',
            "json",
            '{\n  "a": [\n    1.10,\n    {\n      "b": []\n    }\n  ],\n  "a": "x,{y}"\n}',
        ),
        (b"123456789012345678901234567890", "json", "123456789012345678901234567890"),
        (b'{"a":', "text", '{"a":'),
        (b"[" * 100_000, "text", "[" * MOST_BYTES),
        ("a\u202eb".encode(), "text", "a\\u202eb"),
        (b"<script>", "text", "<script>"),
        (b"a\x00b", "hex", "00000000  61 00 62                                         a.b"),
        (b"\xff\xfe", "hex", "00000000  ff fe                                            .."),
    ],
)
def test_a_payload_is_shown_as_what_it_is(payload: bytes, kind: str, text: str) -> None:
    shown = shown_payload(payload)

    assert (shown.kind, shown.text) == (kind, text)


@pytest.mark.parametrize("payload", [b"a" * 300_000, b"\x00" * 300_000, ("ä" * 150_000).encode()])
def test_of_a_long_payload_the_beginning_is_shown_and_that_it_is_cut(payload: bytes) -> None:
    shown = shown_payload(payload)

    assert shown.cut
    assert shown.size == 300_000
    assert len(shown.text.encode()) <= MOST_BYTES
