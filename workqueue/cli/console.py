"""The command that shows queues in the browser: console."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from workqueue.backends import open_queue
from workqueue.cli.dispatchers import AskedDispatcher, Dispatchers
from workqueue.equipment import Equipment
from workqueue.extras import require
from workqueue.fallbacks import FullQueue
from workqueue.metrics import metrics_of
from workqueue.programs.access import HTTP_PORT, PORT, CallFlags, ListenFlags
from workqueue.programs.console import ConsoleFlags
from workqueue.programs.converters import URL
from workqueue.programs.ending import run_server
from workqueue.programs.flags import Flag, naming, with_flags
from workqueue.programs.logs import configure_logging
from workqueue.programs.settings import LogFlags, QueueFlags

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from workqueue.web.console import Admission, ConsoleSettings, OIDCLogin
    from workqueue.web.front import Front

__all__ = ["ShownFlags", "console"]


@dataclass(frozen=True, slots=True)
class ShownFlags:
    """What is shown, and where."""

    calls: CallFlags
    queue: Annotated[
        tuple[str, ...], Flag("a queue to show; several = one switcher", ("WORKQUEUE_URL",), URL, many=True)
    ] = ()
    dispatcher: Annotated[
        tuple[str, ...],
        Flag("also show what the dispatcher at this address knows: http://host:8091", takes=URL, many=True),
    ] = ()
    http_port: Annotated[
        int, Flag("the console, probes and /metrics; 0 = any free one", ("WORKQUEUE_HTTP_PORT", "PORT"), PORT)
    ] = HTTP_PORT

    def urls(self, *, look: bool) -> Sequence[str]:
        """The URLs of the queues, the default one where none was named.

        Raises:
            InvalidSettingError: one is none.
        """
        return [QueueFlags(url).url(look=look) for url in self.queue or (None,)]

    def dispatchers(self) -> Dispatchers | None:
        """Those to ask, to be entered; None = none was named.

        Raises:
            InvalidSettingError: there is none at such an address.
        """
        with naming("--dispatcher"):
            asked = [AskedDispatcher(url, self.calls.security(url)) for url in self.dispatcher]
        return Dispatchers(asked) if asked else None


@with_flags
def console(shown: ShownFlags, how: ConsoleFlags, listen: ListenFlags, logs: LogFlags) -> None:
    """Show queues in the browser, and operate them there.

    Whoever has one of --accept-tokens, or logs in by --oidc-issuer, may come in; without either anybody on this machine
    may. /healthz, /readyz and /metrics are beside it.
    """
    require("console", "the console")
    configure_logging(logs.log_level, logs.log_format)
    served = _Served(how.settings(listen), *how.admission(listen), shown.dispatchers())
    run_server(served.run(shown.urls(look=how.read_only), listen.front(shown.http_port)))


@dataclass(frozen=True, slots=True)
class _Served:
    """What a console process is given."""

    settings: ConsoleSettings
    admission: Admission | None
    login: OIDCLogin | None
    dispatchers: Dispatchers | None

    async def run(self, urls: Sequence[str], front: Front) -> None:
        """Serve until a signal cancels it."""
        from workqueue.web.console import Console
        from workqueue.web.console.beside import opened_beside

        async with AsyncExitStack() as stack:
            queues = _named([await stack.enter_async_context(open_queue(url)) for url in urls])
            asked = await stack.enter_async_context(self.dispatchers) if self.dispatchers is not None else None
            ask = asked.standings if asked is not None else None
            shown = await stack.enter_async_context(Console(queues, self.settings, self.admission, self.login, ask))
            served = opened_beside(
                front, _watching(queues), shown.app, "the console", at="", paths=("/metrics", "/healthz", "/readyz")
            )
            await stack.enter_async_context(served)
            await asyncio.Event().wait()


def _named(queues: Sequence[FullQueue]) -> Mapping[str, FullQueue]:
    """Queues by their names; of two of one name the later is numbered."""
    named: dict[str, FullQueue] = {}
    for queue in queues:
        name, number = Equipment.of(queue).name, 2
        while name in named:
            name, number = f"{Equipment.of(queue).name}-{number}", number + 1
        named[name] = queue
    return named


def _watching(queues: Mapping[str, FullQueue]) -> ASGIApp:
    from prometheus_client import REGISTRY

    from workqueue.telemetry.exposition import Exposition, identity
    from workqueue.web.metrics import watching

    metrics = [metrics_of(queue) for queue in queues.values()]
    return watching(Exposition(identity(os.environ), metrics, others=[REGISTRY]))
