"""A listing of keys, for `workqueue resync`."""

from __future__ import annotations


def keys() -> list[str]:
    return ["x", "y", "z"]
