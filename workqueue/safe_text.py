"""How text from elsewhere is shown in logs, answers and tables: cut, described, and harmless to a terminal."""

from __future__ import annotations

import re
from datetime import timedelta
from urllib.parse import unquote

__all__ = ["cut", "describe", "is_secret", "leaves_of", "shown_duration", "shown_url", "visible"]

# Control characters, lone surrogates, and what reorders or hides its neighbours: zero-width, bidirectional, tags.
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)

_LOCAL = frozenset({"sqlite", "memory"})  # whose paths may have an @ of their own
_HOST = r"(?:[^\s:,\[\]]*|\[[0-9A-Fa-f:.%]*\])(?::\d{0,5})?"
_HOSTS = re.compile(f"{_HOST}(?:,{_HOST})*")
_SETTING = re.compile(r"([^&;=]+)=([^&;]*)")
_SECRET = re.compile(r"pass|pas+w|pwd|secret|token|sig|key|auth|cred", re.IGNORECASE)


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


def shown_duration(duration: timedelta) -> str:
    """A duration in the unit that suits it, to a tenth: `37.6 s`, `9.8 min`, `2.0 h`, `7.0 d`."""
    seconds = duration.total_seconds()
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < 100 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400:.1f} d"


def shown_url(url: str) -> str:
    """`url` for a message, without its passwords: before the host or in the query, encoded as they should be or not.

    Rather too much is hidden than too little: messages end up in logs.
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    end = _end_of_userinfo(rest, local=scheme.lower() in _LOCAL)
    user, colon, _ = rest[:end].partition(":")
    hidden = "" if not end else f"{user}:***" if colon else "***"
    path, question, query = rest[end:].partition("?")
    return visible(f"{scheme}{separator}{hidden}{path}{question}{_SETTING.sub(_without_secret, query)}")


def _end_of_userinfo(rest: str, *, local: bool) -> int:
    """Where the host begins, with its `@`; a password with `/`, `?` or `#` in it does not end before its `@`."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    before, _, query = rest.partition("?")
    searched = authority if local else before if "=" in query else rest
    end = searched.rfind("@")
    if end < 0 and not _HOSTS.fullmatch(authority):
        end = rest.rfind("@") if "@" in rest else len(authority)
    return max(end, 0)


def is_secret(setting: str) -> bool:
    """Whether a setting of this name may hold something that nobody should read."""
    return _SECRET.search(unquote(setting)) is not None


def _without_secret(found: re.Match[str]) -> str:
    name, value = found.groups()
    if is_secret(name):
        return f"{name}=***"
    inner = unquote(value)
    return f"{name}={shown_url(inner)}" if "://" in inner or ":" in inner.partition("@")[0] != inner else found[0]


def leaves_of(error: BaseException) -> list[BaseException]:
    """The errors in a group, and in the groups in it; of any other error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves_of(inner)]
    return [error]


def describe(error: BaseException) -> str:
    """The class and text of an error; of a failed gRPC call its status and text; of a group those of the errors in it.

    An error whose text cannot be had is described by its class.
    """
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(describe, leaves_of(error)))
    try:
        text = _status_of(error) or f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a broken __str__ must not keep an error from being reported
        return type(error).__name__
    return text.removesuffix(": ")


def _status_of(error: BaseException) -> str:
    """`CODE: text` of a failed gRPC call, whose own text is many lines; gRPC itself need not be imported."""
    code, details = (getattr(type(error), name, None) for name in ("code", "details"))  # no property is run
    if not (callable(code) and callable(details)):
        return ""
    name = getattr(code(error), "name", "")
    return f"{name}: {details(error)}" if name else ""
