"""The settings of the `dispatcher` program, from flags and environment: what to call, how, and where failures are sent.

The Go dispatcher's variables are accepted under their own names.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import SplitResult
from urllib.request import getproxies_environment, proxy_bypass

from dispatcher.settings import MAX_CONCURRENCY, DispatcherSettings
from workqueue.access.addresses import is_loopback, join_host_port
from workqueue.attempt import check_callback
from workqueue.backoff import Backoff
from workqueue.errors import InvalidSettingError
from workqueue.programs.access import GRPC_PORT, HTTP_PORT, PORT, CallFlags
from workqueue.programs.converters import DURATION, DURATION_OR_ZERO, FILE, TEXT, URL, Converter, whole
from workqueue.programs.flags import Flag, naming
from workqueue.programs.imported import imported

if TYPE_CHECKING:  # gRPC and aiohttp, which `--help` does not need
    from dispatcher.callback import Callback
    from dispatcher.error_events import ErrorEvents
    from dispatcher.schedules import Schedules
    from workqueue.access.security import ClientSecurity

__all__ = ["DispatchFlags", "EventFlags", "RunPorts", "ScheduleFileFlags", "ScheduleFlags", "ServePorts", "TargetFlags"]

_DEFAULT = DispatcherSettings()
_CALLBACK = Converter("MODULE:NAME|URL", str)
_BACKOFF = Converter("POLICY|MODULE:NAME", str)
_COMMAND = Converter("COMMAND", str)
_CALLBACK_SETTING = "--callback or WORKQUEUE_CALLBACK"
_EVENTS_SETTING = "--events-url or WORKQUEUE_EVENTS_URL"


@dataclass(frozen=True, slots=True)
class TargetFlags:
    """What is called for each key."""

    callback: Annotated[
        str | None,
        Flag("a function of yours: package.module:name, or a URL to post keys to", ("WORKQUEUE_CALLBACK",), _CALLBACK),
    ] = None
    target: Annotated[
        str | None, Flag("or a reconciler behind gRPC: grpc://host:port, https://host", ("WORKQUEUE_TARGET",), URL)
    ] = None
    command: Annotated[
        str | None,
        Flag("or a program, with the key on stdin: exit 0 done, 75 again, 65 drop", ("WORKQUEUE_COMMAND",), _COMMAND),
    ] = None

    def __post_init__(self) -> None:
        if sum(said is not None for said in (self.callback, self.target, self.command)) != 1:
            raise InvalidSettingError(
                "--callback (WORKQUEUE_CALLBACK), --target (WORKQUEUE_TARGET) or --command (WORKQUEUE_COMMAND): "
                "one of them says what is called"
            )

    def opened(self, calls: CallFlags, name: str) -> AbstractAsyncContextManager[Callback]:
        """The callback, to be entered.

        Args:
            calls: how calls to other machines are secured.
            name: the workqueue's, for those who are called over HTTP; may be empty.

        Raises:
            InvalidSettingError: there is no such function or program, or the address is none.
        """
        if self.target is not None:
            return _reconciler(self.target, calls)
        if self.command is not None:
            return nullcontext(_program(self.command))
        called = self.callback or ""
        if called.startswith(("http://", "https://")):
            return _posting(called, calls, name)
        return nullcontext(cast("Callback", _function(_CALLBACK_SETTING, called, "key", "attempt")))


@dataclass(frozen=True, slots=True)
class DispatchFlags:
    """How the dispatcher goes about its queue (see `DispatcherSettings`)."""

    concurrency: Annotated[
        int,
        Flag("at most N in progress, over all dispatchers", ("WORKQUEUE_CONCURRENCY",), whole(1, MAX_CONCURRENCY)),
    ] = _DEFAULT.concurrency
    batch_size: Annotated[
        int,
        Flag("start at most N at once; 0 = concurrency", ("WORKQUEUE_BATCH_SIZE",), whole(0, MAX_CONCURRENCY)),
    ] = _DEFAULT.batch_size
    max_retry: Annotated[
        int, Flag("dead-letter a key at this failed attempt; 0 = never", ("WORKQUEUE_MAX_RETRY",), whole(0))
    ] = _DEFAULT.max_retry
    max_run_time: Annotated[timedelta, Flag("cancel a callback after this", ("WORKQUEUE_MAX_RUN_TIME",), DURATION)] = (
        _DEFAULT.max_run_time
    )
    backoff: Annotated[
        str | None,
        Flag(
            "a policy of `dispatcher policies`, or a function: attempts -> delay",
            ("WORKQUEUE_BACKOFF",),
            _BACKOFF,
        ),
    ] = None
    poll_period: Annotated[
        timedelta, Flag("look for keys at least once in this time", ("WORKQUEUE_POLL_PERIOD",), DURATION)
    ] = _DEFAULT.poll_period
    drain_timeout: Annotated[
        timedelta, Flag("on SIGTERM callbacks may run on for this", ("WORKQUEUE_DRAIN_TIMEOUT",), DURATION_OR_ZERO)
    ] = _DEFAULT.drain_timeout
    trigger_period: Annotated[
        timedelta,
        Flag("one round at most for triggers within this; 0s = each", ("WORKQUEUE_TRIGGER_PERIOD",), DURATION_OR_ZERO),
    ] = _DEFAULT.trigger_period
    keep_dropped: Annotated[
        bool, Flag("keep keys that can never succeed as dead letters", ("WORKQUEUE_KEEP_DROPPED",))
    ] = _DEFAULT.keep_dropped
    owner: Annotated[str, Flag("recorded with keys in progress, and a metric label", ("WORKQUEUE_OWNER",), TEXT)] = ""

    def settings(self) -> DispatcherSettings:
        """These flags as the dispatcher takes them.

        Raises:
            InvalidSettingError: there is no such policy or function.
        """
        return DispatcherSettings(
            concurrency=self.concurrency,
            batch_size=self.batch_size,
            max_retry=self.max_retry,
            backoff=_backoff(self.backoff) if self.backoff else None,
            max_run_time=self.max_run_time,
            poll_period=self.poll_period,
            drain_timeout=self.drain_timeout,
            trigger_period=self.trigger_period,
            keep_dropped=self.keep_dropped,
        )


@dataclass(frozen=True, slots=True)
class EventFlags:
    """Where failures are sent."""

    events_url: Annotated[
        str,
        Flag(
            "CloudEvents broker that failures are sent to; none = no events",
            ("WORKQUEUE_EVENTS_URL", "ERROR_EVENT_INGRESS_URI", "ERROR_EVENT_BROKER_URL"),
            URL,
        ),
    ] = ""
    events_name: Annotated[
        str, Flag("what events call the queue; else its own name", ("WORKQUEUE_EVENTS_NAME",), TEXT)
    ] = ""
    events_structured: Annotated[
        bool, Flag("send each event as one JSON document", ("WORKQUEUE_EVENTS_STRUCTURED",))
    ] = False

    lifecycle_events: Annotated[
        bool, Flag("also send an event for every change of a key's state", ("WORKQUEUE_LIFECYCLE_EVENTS",))
    ] = False

    def __post_init__(self) -> None:
        if self.lifecycle_events and not self.events_url:
            raise InvalidSettingError("--lifecycle-events: they go to the broker of --events-url; say which")

    def sinks(self, secured: Callable[[str], ClientSecurity]) -> Callable[[str], ErrorEvents]:
        """What makes the sink of the queue of a name; without a URL it sends nothing.

        Args:
            secured: the security of calls of an address, as for the target.

        Raises:
            InvalidSettingError: the URL is none, or a file is not what it should be.
        """
        from dispatcher.error_events import CloudEventErrors
        from dispatcher.lifecycle import CloudEventLifecycle
        from workqueue.access.urls import http_url

        if not self.events_url:
            return lambda queue_name: CloudEventErrors("", self.events_name or queue_name)
        with naming(_EVENTS_SETTING):
            parts = http_url(self.events_url, "to send error events to")
        security = _fitting(parts, secured(_origin(parts)))
        with naming("HTTP_PROXY, HTTPS_PROXY"):
            proxy = _proxy_of(parts)
            http_url(proxy, "of a proxy") if proxy else None

        def sink(queue_name: str) -> ErrorEvents:
            errors = CloudEventErrors(
                self.events_url,
                self.events_name or queue_name,
                structured=self.events_structured,
                security=security,
                proxy=proxy,
            )
            return CloudEventLifecycle(errors) if self.lifecycle_events else errors

        return sink


@dataclass(frozen=True, slots=True)
class ScheduleFileFlags:
    """Schedules that are declared where they are fired."""

    schedules_file: Annotated[
        Path | None, Flag("a TOML file of schedules to add or change first", ("WORKQUEUE_SCHEDULES_FILE",), FILE)
    ] = None


@dataclass(frozen=True, slots=True)
class ScheduleFlags:
    """Whether schedules are fired beside."""

    file: ScheduleFileFlags
    schedules: Annotated[bool, Flag("also fire the schedules of this queue", ("WORKQUEUE_SCHEDULES",))] = False

    def __post_init__(self) -> None:
        if self.file.schedules_file is not None and not self.schedules:
            raise InvalidSettingError("--schedules-file (WORKQUEUE_SCHEDULES_FILE) goes with --schedules")

    def fired(self, url: str, owner: str) -> Schedules | None:
        """The schedules to fire beside a dispatcher of the queue at `url`; None if none are to be.

        Raises:
            InvalidSettingError: the file cannot be read, or a schedule in it is none.
        """
        if not self.schedules:
            return None
        from dispatcher.schedules import Schedules

        return Schedules.of(url, self.file.schedules_file, owner)


@dataclass(frozen=True, slots=True)
class RunPorts:
    """Where a dispatcher without a receiver is triggered and watched."""

    http_port: Annotated[
        int, Flag("trigger, probes, /metrics; 0 = any free one", ("WORKQUEUE_HTTP_PORT", "PORT"), PORT)
    ] = HTTP_PORT


@dataclass(frozen=True, slots=True)
class ServePorts:
    """Where a dispatcher with a receiver takes keys, and where it is triggered and watched."""

    grpc_port: Annotated[int, Flag("the receiver; 0 = any free one", ("WORKQUEUE_GRPC_PORT", "PORT"), PORT)] = GRPC_PORT
    http_port: Annotated[int, Flag("trigger, probes, /metrics; 0 = any free one", ("WORKQUEUE_HTTP_PORT",), PORT)] = (
        HTTP_PORT
    )


def _reconciler(target: str, calls: CallFlags) -> AbstractAsyncContextManager[Callback]:
    from dispatcher.targets.service import service_callback

    security = calls.security(target)
    with naming("--target or WORKQUEUE_TARGET"):
        return service_callback(target, security=security)


def _posting(url: str, calls: CallFlags, name: str) -> AbstractAsyncContextManager[Callback]:
    from dispatcher.targets.post import http_callback
    from workqueue.access.urls import http_url

    with naming(_CALLBACK_SETTING):
        parts = http_url(url, "to post keys to")
    security = calls.security(_origin(parts))
    with naming(_CALLBACK_SETTING):
        return http_callback(url, source=name or "workqueue", security=security, proxy=_proxy_of(parts))


def _origin(parts: SplitResult) -> str:
    """The server of a URL, without the path, and without a password."""
    default = 443 if parts.scheme == "https" else 80
    return f"{parts.scheme}://{join_host_port(parts.hostname or '', parts.port or default)}"


def _fitting(parts: SplitResult, security: ClientSecurity) -> ClientSecurity:
    """What of the security of a target fits a broker beside it, which may be one of plaintext in the same cluster.

    There is nothing to trust and no certificate to show then, and a token would be overheard.
    """
    if parts.scheme == "https":
        return security
    shown = security.insecure or is_loopback(parts.hostname or "")
    return replace(security, ca=None, certificate=None, key=None, token=security.token if shown else None)


def _proxy_of(parts: SplitResult) -> str | None:
    """The proxy that the environment names for a URL: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, unless NO_PROXY covers it.

    As in Go there is none for this machine itself.
    """
    proxies, host = getproxies_environment(), parts.hostname or ""
    if is_loopback(host) or proxy_bypass(join_host_port(host, parts.port or 0), proxies):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _program(command: str) -> Callback:
    from dispatcher.targets.command import command_callback

    with naming("--command or WORKQUEUE_COMMAND"):
        try:
            return command_callback(*shlex.split(command))
        except ValueError as error:  # a quotation mark without its pair
            raise InvalidSettingError(f"{command!r} is no command line: {error}") from error


def _backoff(name: str) -> Backoff:
    setting = "--backoff or WORKQUEUE_BACKOFF"
    if ":" in name:
        return cast("Backoff", _function(setting, name, "attempts"))
    from workqueue.routing.policies import retry_policy

    with naming(setting):
        return retry_policy(name)


def _function(setting: str, name: str, *given: str) -> object:
    """The user's function, if it can be called with what it is given: else every attempt would fail and count."""
    found = imported(setting, name)
    with naming(setting):
        check_callback(found, *given, role=name)
    return found
