"""What is optional: the extras of the distribution, and the one line that names the one that a feature needs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

from workqueue.errors import MissingExtraError

__all__ = ["EXTRAS", "importing", "require", "run_main"]

# One that names other extras in pyproject.toml has their modules here, too.
_GRPC = ("google.protobuf", "grpc", "grpc_health", "grpc_reflection", "grpc_status")
_HTTP = ("httptools", "starlette", "uvicorn")
_EVENTS = ("aiohttp", "cloudevents")
_CLI = ("rich", "typer")

EXTRAS = {
    "cli": _CLI,
    "console": (*_CLI, *_HTTP, "prometheus_client", "jinja2"),
    "events": _EVENTS,
    "gcs": ("aiohttp", "gcloud.aio.auth"),
    "grpc": _GRPC,
    "http": _HTTP,
    "kubernetes": ("kubernetes_asyncio",),
    "metrics": ("prometheus_client", "starlette"),
    "oidc": ("aiohttp", "jwt"),
    "otel": ("opentelemetry",),
    "redis": ("hiredis", "redis"),
    "routing": ("msgspec",),
    "schedules": ("cronsim",),
    "serve": (*_CLI, *_EVENTS, *_GRPC, *_HTTP, "prometheus_client", "cronsim"),
    "sqs": ("aiobotocore",),
}
"""Each extra that a feature may need, and the modules that it brings; what they bring themselves is not listed."""


def require(extra: str, feature: str) -> None:
    """Return if `extra` is installed. Nothing is imported, so this costs little.

    Args:
        extra: one of `EXTRAS`.
        feature: what needs it, as the subject of the error's sentence.

    Raises:
        MissingExtraError: a module of it is missing; the message says what to install.
    """
    for module in EXTRAS[extra]:
        if not _is_there(module):
            raise MissingExtraError(_sentence(extra, feature, module))


@contextmanager
def importing(extra: str, feature: str) -> Iterator[None]:
    """For `with` around imports of what `extra` brings.

    Args:
        extra: one of `EXTRAS`.
        feature: what needs it, as the subject of the error's sentence.

    Raises:
        MissingExtraError: one of the imports found no module; the message says what to install.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except ModuleNotFoundError as error:
        raise MissingExtraError(_sentence(extra, feature, error.name or "a module")) from error


def run_main(program: str, module: str) -> None:
    """Call `main()` of `module`, the command line of `program`; without the extra [cli] print one line and exit 2."""
    try:
        require("cli", f"the command line of {program}")
    except MissingExtraError as error:
        sys.stderr.write(f"{program}: {error}\n")
        sys.exit(2)
    with _no_collections():
        main = import_module(module).main
    main()


@contextmanager
def _no_collections() -> Iterator[None]:
    """Imports leave no garbage, and looking for it among all that they make is a sixth of a command's start."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def _sentence(extra: str, feature: str, module: str) -> str:
    return f"{feature} needs {module}, which is not installed: pip install 'workqueue-dispatcher[{extra}]'"
