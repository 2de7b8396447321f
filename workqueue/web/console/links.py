"""Addresses within a console: whatever a key is made of, a link to it leads to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, quote, unquote

from workqueue.errors import InvalidOptionsError

__all__ = ["address", "is_within", "key_token", "keys_of", "values_of"]

_MOST_FIELDS = 2000


def address(*parts: str, **query: str) -> str:
    """A path within the console, and its query; what is empty is left out of it."""
    path = "/" + "/".join(quote(part, safe="", errors="surrogatepass") for part in parts)
    said = "&".join(f"{name}={quote(value, errors='surrogatepass')}" for name, value in query.items() if value)
    return f"{path}?{said}" if said else path


def is_within(path: str) -> bool:
    """Whether a browser that is sent to `path` stays within the console."""
    return path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()


def values_of(encoded: bytes) -> Mapping[str, Sequence[str]]:
    """The values of a query or of a form.

    Raises:
        InvalidOptionsError: they are no UTF-8, or more than any page of ours has.
    """
    try:
        return parse_qs(
            encoded.decode("ascii"), keep_blank_values=True, errors="surrogatepass", max_num_fields=_MOST_FIELDS
        )
    except ValueError as error:
        raise InvalidOptionsError("these are not the fields of a page of this console") from error


def key_token(key: str) -> str:
    """A key as a field of a form can carry it: HTML has no NUL, and browsers change line ends."""
    return quote(key, errors="surrogatepass")


def keys_of(tokens: Sequence[str]) -> list[str]:
    """The keys that these tokens stand for.

    Raises:
        InvalidOptionsError: one was not made by `key_token`.
    """
    try:
        return [unquote(token, errors="surrogatepass") for token in tokens]
    except UnicodeDecodeError as error:
        raise InvalidOptionsError("this is no key of a page of this console") from error
