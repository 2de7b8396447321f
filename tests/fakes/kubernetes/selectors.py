"""Label and field selectors of the fake Kubernetes API server."""

from __future__ import annotations

import re
from typing import Any

from tests.fakes.kubernetes.store import Refusal, Stored

_TERMS = re.compile(r",(?![^(]*\))")  # a comma inside of "in (a,b)" separates values, not terms
_SET = re.compile(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)")


def matches(stored: Stored, labels: str, fields: str) -> bool:
    """Whether an object is selected; an empty selector selects everything."""
    own = stored.metadata.get("labels") or {}
    return all(_label(own, term.strip()) for term in _TERMS.split(labels) if term) and all(
        _field(stored.body, term) for term in fields.split(",") if term
    )


def _label(own: dict[str, str], term: str) -> bool:
    if found := _SET.fullmatch(term):
        name, operator, values = found.groups()
        inside = own.get(name) in [value.strip() for value in values.split(",")]
        return inside if operator == "in" else not inside
    if "!=" in term:
        name, _, value = term.partition("!=")
        return own.get(name.strip()) != value.strip()
    if "=" in term:
        name, _, value = term.replace("==", "=").partition("=")
        return own.get(name.strip()) == value.strip()
    return term[1:] not in own if term.startswith("!") else term in own


def _field(body: dict[str, Any], term: str) -> bool:
    operator = "!=" if "!=" in term else "="
    path, _, wanted = term.replace("==", "=").partition(operator)
    if path not in ("metadata.name", "metadata.namespace", "spec.nodeName", "status.phase"):
        raise Refusal(400, "BadRequest", f'field label not supported: "{path}"')
    value: Any = body
    for part in path.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    return ((value or "") == wanted) == (operator == "=")
