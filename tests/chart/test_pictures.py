"""A picture of a panel can be read: each of its lines is told from the others."""

from __future__ import annotations

import re

from charts.pictures import Series, picture


def test_no_two_of_many_lines_look_alike_and_each_is_in_the_legend() -> None:
    lines = [Series(f"queue {number}", [(0.0, 1.0), (10.0, float(number))]) for number in range(32)]

    drawn = picture("Keys", "short", lines)

    looks = re.findall(r'<polyline fill="none" (.*?) points', drawn)
    samples = re.findall(r'<line fill="none" (.*?) x1', drawn)
    assert len(set(looks)) == 32
    assert samples == looks
    assert [f"queue {number}" in drawn for number in range(32)] == [True] * 32
