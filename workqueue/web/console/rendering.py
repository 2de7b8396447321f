"""Templates, filled in. Everything is escaped, and what hides or reorders text is spelled out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from workqueue.safe_text import shown_duration, visible
from workqueue.web.console.links import address, key_token

__all__ = ["asset", "compile_templates", "rendered"]

_ASSETS = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}


def compile_templates() -> None:
    """Read and compile them all; else whoever asks for the first page of a process waits for that."""
    environment = _environment()
    for name in environment.list_templates(["html"]):
        environment.get_template(name)


def rendered(template: str, status: int = 200, **shown: Any) -> HTMLResponse:
    """A page made of `template`, which no cache keeps."""
    text = _environment().get_template(template).render(now=datetime.now(UTC), **shown)
    return HTMLResponse(text.encode("utf-8", "replace"), status, headers={"cache-control": "no-store"})


@cache
def asset(name: str) -> tuple[bytes, str] | None:
    """A file that pages refer to, with its media type; None = there is no such file."""
    if name not in _ASSETS:
        return None
    return (files(__package__) / "static" / name).read_bytes(), _ASSETS[name]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("workqueue.web.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["address"] = address
    environment.globals["version"] = sha256(b"".join((asset(name) or (b"",))[0] for name in _ASSETS)).hexdigest()[:12]
    environment.filters |= {"visible": _visible, "moment": _moment, "ago": _ago, "duration": _duration, "rate": _rate}
    environment.filters |= {"token": key_token, "lines": _lines}
    return environment


def _visible(text: object) -> str:
    return visible(str(text))


def _lines(text: str) -> str:
    """As `visible`, but what has several lines, such as a traceback, keeps them."""
    return "\n".join(visible(line) for line in text.split("\n"))


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _ago(moment: datetime | None, now: datetime) -> str:
    """How far off a moment is: `3.0 s ago`, `in 2.0 min`."""
    if moment is None:
        return ""
    passed = now - moment
    return f"{shown_duration(passed)} ago" if passed >= timedelta(0) else f"in {shown_duration(-passed)}"


def _duration(seconds: float) -> str:
    return shown_duration(timedelta(seconds=seconds))


def _rate(per_second: float | None) -> str:
    if per_second is None:
        return "unknown"
    return f"{per_second:,.1f}/s" if abs(per_second) >= 0.95 or not per_second else f"{per_second * 60:,.1f}/min"
