"""Where browsers see a console that stands behind a proxy: by a setting, or by headers of proxies that are trusted."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Forwarded"]

_HOST = re.compile(r"[\w.-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_PREFIX = re.compile(r"(/[\w.~-]+)+")


class Forwarded:
    """ASGI middleware: scheme, host and root path as the browser has them.

    Args:
        app: what is behind it.
        public_url: decides, where it is given.
        trusted: addresses of proxies whose X-Forwarded-Proto, -Host and -Prefix count; those of others do not.
    """

    def __init__(self, app: ASGIApp, public_url: str, trusted: Collection[str]) -> None:
        self._app = app
        self._public = urlsplit(public_url)
        self._trusted = frozenset(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = dict(scope)
            if self._public.hostname:
                _see(scope, self._public.scheme, self._public.netloc)
                _move(scope, self._public.path.rstrip("/"))
            elif scope.get("client") and scope["client"][0] in self._trusted:
                headers = Headers(scope=scope)
                asked = [headers.get(f"x-forwarded-{name}", "") for name in ("proto", "host", "prefix")]
                proto, host, prefix = (each.rpartition(",")[2].strip() for each in asked)
                _see(scope, proto, host)
                if _PREFIX.fullmatch(prefix.rstrip("/")):
                    _move(scope, prefix.rstrip("/") + scope.get("root_path", ""))
        await self._app(scope, receive, send)


def _see(scope: Scope, scheme: str, host: str) -> None:
    """Let `scope` have scheme and host as a browser has them; what makes no sense changes nothing."""
    if scheme in ("http", "https"):
        scope["scheme"] = scheme
    if _HOST.fullmatch(host):
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [*others, (b"host", host.encode())]


def _move(scope: Scope, root: str) -> None:
    """Let the app begin at `root`. A proxy may pass its prefix on or take it off; ASGI wants it in the path."""
    path, before = scope["path"], scope.get("root_path", "")
    scope["root_path"] = root
    if path != root and not path.startswith(root + "/"):
        scope["path"] = root + (path[len(before) :] if path.startswith(before) else path)
