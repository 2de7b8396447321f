"""A console on the port of a program that serves something else there, too."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from starlette.types import ASGIApp, Receive, Scope, Send

from workqueue.web.bearer import guarded
from workqueue.web.front import Front

__all__ = ["Beside", "opened_beside"]


class Beside:
    """ASGI: the console has a login of its own, so it stands beside what bearer tokens guard, not behind it.

    Args:
        app: what the program serves anyway, guarded.
        console: `Console.app`.
        at: the path of the console, such as `/console`; '' = all but `paths`.
        paths: those of `app`, where the console has all others.
    """

    def __init__(self, app: ASGIApp, console: ASGIApp, at: str = "/console", paths: Collection[str] = ()) -> None:
        self._app = app
        self._console = console
        self._at = at
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path in self._paths or not (path == self._at or path.startswith(f"{self._at}/")):
            return await self._app(scope, receive, send)
        root = scope.get("root_path", "") + self._at
        inside = {**scope, "root_path": root, "path": path if path != self._at else f"{path}/"}
        return await self._console(inside, receive, send)


def opened_beside(
    front: Front, app: ASGIApp, console: ASGIApp, shows: str, *, at: str, paths: Collection[str] = ()
) -> AbstractAsyncContextManager[None]:
    """Serve `app` behind the tokens of `front`, and the console next to it, until the block ends; see `Beside`.

    Raises:
        InvalidSettingError: the address cannot be listened on.
    """
    both = Beside(guarded(app, front.security), console, at, paths)
    return replace(front, security=replace(front.security, tokens=None)).opened(both, shows)
