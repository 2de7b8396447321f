"""Which URLs are called over HTTP: checked when they are given, not when they are first needed."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from workqueue.access.addresses import is_host
from workqueue.errors import InvalidSettingError
from workqueue.safe_text import shown_url, visible

__all__ = ["http_url"]


def http_url(url: str, what: str) -> SplitResult:
    """The parts of `url`.

    Args:
        url: http:// or https://, with a host, and a port that there is.
        what: what it is for, for the error.

    Raises:
        InvalidSettingError: it is none.
    """
    try:
        parts = urlsplit(url)
        if "\\" in url or visible(url) != url.strip():  # some readers take these for something else, or leave them out
            raise ValueError
        if parts.scheme in ("http", "https") and is_host(parts.hostname or "") and parts.port != 0:
            return parts
    except ValueError:  # also a port beyond 65535, a broken IPv6 address
        pass
    raise InvalidSettingError(f"{shown_url(url)!r} is no URL {what}; it takes http://host/path or https://host/path")
