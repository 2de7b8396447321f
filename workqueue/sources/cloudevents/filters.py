"""Stage 1: which CloudEvents are of interest: filters as Knative triggers and the Subscriptions API write them.

A filter is JSON such as `{"any": [{"prefix": {"type": "com.example."}}, {"not": {"exact": {"data.kind": "Pod"}}}]}`, or
in short `type^=com.example.`, `subject$=.json`, `type=x`, `type!=x`. Fields of the data may be named too. CESQL is not
read.

Source: https://github.com/cloudevents/spec/blob/main/subscriptions/spec.md#324-filters
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from workqueue.errors import InvalidSettingError
from workqueue.sources.cloudevents.event import Event
from workqueue.sources.cloudevents.fields import Field

__all__ = ["Filter", "parse_filter"]

Filter = Callable[[Event], bool]
"""Whether an event is of interest."""

_SHORT = re.compile(r"([^=^$!]+)(=|\^=|\$=|!=)(.*)", re.DOTALL)
_COMPARE: dict[str, Callable[[str, str], bool]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
}
_DIALECT = {"=": "exact", "^=": "prefix", "$=": "suffix"}


def parse_filter(text: str) -> Filter:
    """Read a filter, in JSON or in short.

    Raises:
        InvalidSettingError: it is none.
    """
    if text.lstrip().startswith("{"):
        try:
            return _read(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise InvalidSettingError(f"the filter {text!r} cannot be read: {error}") from error
    found = _SHORT.fullmatch(text)
    if found is None:
        raise InvalidSettingError(
            f"a filter is FIELD=VALUE, ^= (prefix), $= (suffix) or != (not), or JSON, not {text!r}"
        )
    name, operator, value = found.groups()
    if operator == "!=":
        return _not(_comparison("exact", {name: value}))
    return _comparison(_DIALECT[operator], {name: value})


def _read(expression: Any) -> Filter:
    if not isinstance(expression, dict) or len(expression) != 1:
        raise ValueError("each expression is an object with one dialect")
    [(dialect, content)] = expression.items()
    if dialect in _COMPARE and isinstance(content, dict) and content:
        return _comparison(dialect, content)
    if dialect in ("all", "any") and isinstance(content, list) and content:
        combine = all if dialect == "all" else any
        filters = [_read(each) for each in content]
        return lambda event: combine(each(event) for each in filters)
    if dialect == "not":
        return _not(_read(content))
    raise ValueError(
        f"the dialects are exact, prefix, suffix, all, any and not, with something in them, unlike {dialect!r}"
    )


def _comparison(dialect: str, wanted: dict[str, Any]) -> Filter:
    compare = _COMPARE[dialect]
    fields = [(Field.parse(name), str(value)) for name, value in wanted.items()]

    def matches(event: Event) -> bool:
        return all((found := field.of(event)) is not None and compare(found, value) for field, value in fields)

    return matches


def _not(filter_: Filter) -> Filter:
    return lambda event: not filter_(event)
