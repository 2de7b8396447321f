"""Stage 1: what to watch: a kind, which of its objects, whose keys they are, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workqueue.errors import InvalidOptionsError, InvalidSettingError
from workqueue.options import Options
from workqueue.sources.kubernetes.kinds import Kind
from workqueue.sources.kubernetes.mapping import KeysOf, itself

__all__ = ["IndexOf", "Keep", "Watch", "nothing", "whole", "without_managed_fields"]

Keep = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Given an object, what the cache is to keep of it. It may change the object and return it."""

IndexOf = Callable[[Mapping[str, Any]], Iterable[str]]
"""Given what is kept of an object, the values under which an index finds it."""


def whole(object_: dict[str, Any]) -> dict[str, Any] | None:
    """Keep the object as the API server sent it."""
    return object_


def without_managed_fields(object_: dict[str, Any]) -> dict[str, Any] | None:
    """Keep everything but `metadata.managedFields`, which is up to half of an object and of use to the server only.

    It costs half as much CPU as parsing the object.
    """
    object_["metadata"].pop("managedFields", None)
    return object_


def nothing(object_: dict[str, Any]) -> dict[str, Any] | None:
    """Keep nothing but name and version, for a source that nobody asks for objects."""
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Watch:
    """Some objects of one kind, and the keys that have to look at them when they change.

    Args:
        kind: `[group/]version/Kind`, such as `apps/v1/Deployment` or `v1/Pod`.
        namespace: only in this one; by default in all.
        label_selector: only with these labels, as kubectl's `--selector`.
        field_selector: only with these fields, as kubectl's `--field-selector`.
        keys: which keys an object stands for; by default its own `namespace/name`.
        priority: of keys whose object changed.
        keep: what the cache keeps of an object; it is kept as JSON text.
        indexes: functions that give an object's values in an index, by the index's name.

    Raises:
        InvalidSettingError: a value is none that it can have.
    """

    kind: str
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""
    keys: KeysOf = itself
    priority: int = 0
    keep: Keep = whole
    indexes: Mapping[str, IndexOf] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Kind.parse(self.kind)
        try:
            Options(priority=self.priority)
        except InvalidOptionsError as error:
            raise InvalidSettingError(f"watch of {self.kind}: {error}") from error

    @property
    def parsed_kind(self) -> Kind:
        """`kind`, taken apart."""
        return Kind.parse(self.kind)

    def selectors(self) -> dict[str, str]:
        """The query parameters that select its objects."""
        given = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {name: value for name, value in given.items() if value}

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        which = " and ".join(self.selectors().values())
        return f"{self.kind}{where}{' with ' if which else ''}{which}"
