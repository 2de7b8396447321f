"""How text from elsewhere is shown in logs, answers and tables: cut, described, and harmless to a terminal."""

from __future__ import annotations

import re
from datetime import timedelta
from urllib.parse import unquote

__all__ = ["cut", "describe", "leaves_of", "said", "shown_duration", "shown_setting", "shown_url", "visible"]

# Control characters, lone surrogates, and what reorders or hides its neighbours: zero-width, bidirectional, tags.
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)

_LOCAL = frozenset({"sqlite", "memory"})  # whose paths may have an @ of their own
_HOST = r"(?:[\w.-]*|\[[0-9A-Fa-f:.%]*\])(?::\d{0,5})?"
_HOSTS = re.compile(f"{_HOST}(?:,{_HOST})*")
_PATH = re.compile(r"[^\s;&=]*")
_PLAIN = re.compile(r"[\w./@-]*")
_SERVER = re.compile(rf"[\w+.-]+://{_HOST}/?")
_SECRET = re.compile(r"pass|pas+w|pwd|secret|token|sig|key|auth|cred", re.IGNORECASE)
_HARMLESS = re.compile(
    "anonymous|boot_id|busy_timeout|db|endpoint|exact|impersonate|keep|lease|max_payload|mode|name|password_file"
    "|patience|read_only|refresh|region|renew|sentinel_username|spread|synchronous|timeout|tls|tls_ca|tls_cert|tls_key"
    "|user_project|wait_replicas"
)
"""The settings of queue URLs whose values anybody may read; whatever else a query says is hidden."""


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
    """`url` for a message, without its passwords: before the host, in the path, query or fragment, encoded or not.

    Only what is known to be harmless is shown, since messages end up in logs: user, host, path, and the settings of
    our own backends.
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    local = scheme.lower() in _LOCAL
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    end = _end_of_userinfo(rest, authority, local=local)
    if end > len(authority) and authority and _HOSTS.fullmatch(authority):  # which of both is the host?
        return visible(f"{scheme}{separator}***")
    user, colon, _ = rest[:end].partition(":")
    hidden = "" if not end else f"{user}:***" if colon else "***"
    place, mark, after = _parted(rest[end:])
    if not local and (plain := _PATH.match(place)) and plain[0] != place:
        place = f"{plain[0]}***"
    if mark == "?":
        query, fragment, _ = after.partition("#")
        after = "&".join(map(_shown_part, query.split("&"))) + ("#***" if fragment else "")
    elif mark:
        after = "***"
    return visible(f"{scheme}{separator}{hidden}{place}{mark}{after}")


def _parted(rest: str) -> tuple[str, str, str]:
    """What stands before the query or the fragment, the mark that begins it, and what follows."""
    begin = re.search(r"[?#]", rest)
    return (rest[: begin.start()], begin[0], rest[begin.end() :]) if begin else (rest, "", "")


def _end_of_userinfo(rest: str, authority: str, *, local: bool) -> int:
    """Where the host begins, with its `@`; a password with `/`, `?` or `#` in it does not end before its `@`."""
    before, _, query = rest.partition("?")
    searched = authority if local else before if "=" in query else rest
    end = searched.rfind("@")
    if end < 0 and not _HOSTS.fullmatch(authority):
        end = rest.rfind("@") if "@" in rest else len(authority)
    return max(end, 0)


def shown_setting(name: str, value: str) -> str:
    """`name=value` of a URL's query for a message; *** in place of a value that may be secret."""
    harmless = _SERVER if name == "endpoint" else _PLAIN
    return f"{name}={value if _HARMLESS.fullmatch(name) and harmless.fullmatch(value) else '***'}"


def _shown_part(part: str) -> str:
    """One part of a query. Its name is hidden too unless it is known: it may be the rest of a password with an `&`."""
    name, equals, value = part.partition("=")
    if not equals or not (_HARMLESS.fullmatch(name) or _SECRET.search(unquote(name))):
        return "***" if part else ""
    return shown_setting(name, unquote(value))


def leaves_of(error: BaseException) -> list[BaseException]:
    """The errors in a group, and in the groups in it, however deep; of any other error itself."""
    leaves, waiting = [], [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(reversed(each.exceptions))
        else:
            leaves.append(each)
    return leaves


def describe(error: BaseException) -> str:
    """The class and text of an error; of a failed gRPC call its status and text; of a group those of the errors in it.

    An error whose text cannot be had is described by its class.
    """
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(describe, leaves_of(error)))
    try:
        text = _status_of(error) or f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - a broken __str__, even one that exits, must not keep it from being reported
        return type(error).__name__
    return text.removesuffix(": ")


def said(error: BaseException) -> str:
    """The text of an error, without its class; of one whose text cannot be had its class."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - as in `describe`
        return type(error).__name__


def _status_of(error: BaseException) -> str:
    """`CODE: text` of a failed gRPC call, whose own text is many lines; gRPC itself need not be imported."""
    code, details = (getattr(type(error), name, None) for name in ("code", "details"))  # no property is run
    if not (callable(code) and callable(details)):
        return ""
    name = getattr(code(error), "name", "")
    return f"{name}: {details(error)}" if name else ""
