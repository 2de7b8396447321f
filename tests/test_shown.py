"""How text from elsewhere is shown: cut, described, made harmless."""

from __future__ import annotations

import grpc
import pytest

from workqueue.shown import cut, describe, visible


class HopelessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


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
