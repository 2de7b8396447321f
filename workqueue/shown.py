"""How text from elsewhere is shown in logs, answers and tables: cut, described, and harmless to a terminal."""

from __future__ import annotations

import re

__all__ = ["cut", "describe", "visible"]

# Control characters, lone surrogates, and what reorders or hides its neighbours: zero-width, bidirectional, tags.
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """`text` with every harmful character escaped as in a Python literal, so that it is one line and reads as it is."""
    return _HARMFUL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def cut(text: str, most_bytes: int) -> str:
    """`text` as valid UTF-8 of at most `most_bytes`; it ends in an ellipsis where something was left out.

    Lone surrogates are escaped.
    """
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= most_bytes:
        return encoded.decode()
    return encoded[: most_bytes - 3].decode("utf-8", "ignore") + "…"


def describe(error: BaseException) -> str:
    """The class and text of an error; of a failed gRPC call its status and text.

    An error whose text cannot be had is described by its class.
    """
    try:
        text = _status_of(error) or f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a broken __str__ must not keep an error from being reported
        return type(error).__name__
    return text.removesuffix(": ")


def _status_of(error: BaseException) -> str:
    """`CODE: text` of a failed gRPC call, whose own text is many lines; gRPC itself need not be imported."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if not (callable(code) and callable(details)):
        return ""
    name = getattr(code(), "name", "")
    return f"{name}: {details()}" if name else ""
