"""What the public Go implementation does to a bucket, request by request.

A stand-in for it in tests of sharing a bucket: no code of it, only which objects it reads and writes, with which
metadata and preconditions, as recorded on our emulator from its own code with Google's Go client (2026-11). Its
weaknesses are part of it: neither the source of a start is pinned nor the delete after.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.fakes.gcs.raw import RawClient

NONE = "0001-01-01T00:00:00Z"
LEASE_SECONDS = 15 * 60


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class GoPeer:
    """A Go process on the bucket of `client`.

    Args:
        client: a raw connection.
        now: seconds since the epoch.
    """

    def __init__(self, client: RawClient, now: Callable[[], float] = time.time) -> None:
        self._client = client
        self._now = now
        self.held: dict[str, dict[str, Any]] = {}

    def metadata(self, name: str) -> dict[str, str] | None:
        answer = self._client.get(name)
        return answer.json.get("metadata", {}) if answer.status == 200 else None

    def queue(self, key: str, priority: int = 0, not_before: str = NONE, *, floor: bool = False) -> None:
        incoming = {"priority": f"{priority:08d}", "not-before": not_before}
        if floor:
            incoming["not-before-floor"] = "true"
        if self._client.insert(f"queued/{key}", metadata=incoming, ifGenerationMatch=0).status == 412:
            self._merge(key, incoming)

    def _merge(self, key: str, incoming: dict[str, str]) -> None:
        existing = self.metadata(f"queued/{key}") or {}
        merged = dict(existing)
        if int(existing.get("priority", "-1")) < int(incoming["priority"]):
            merged["priority"] = incoming["priority"]
        was, wanted = existing.get("not-before", ""), incoming["not-before"]
        if incoming.get("not-before-floor") == "true":
            holds = existing.get("not-before-floor") == "true" and was >= wanted
            merged |= {} if holds else {"not-before": wanted, "not-before-floor": "true"}
        elif existing.get("not-before-floor") != "true" and was > wanted:
            merged["not-before"] = wanted
        if merged != existing:
            self._client.patch(f"queued/{key}", {"metadata": merged})

    def start(self, key: str) -> bool:
        metadata = self.metadata(f"queued/{key}")
        if metadata is None:
            return False
        metadata |= {
            "lease-expiration": stamp(self._now() + LEASE_SECONDS),
            "attempts": str(int(metadata.get("attempts", "0")) + 1),
            "not-before": NONE,
            "owner": "go",
        }
        metadata.pop("not-before-floor", None)
        document = {"metadata": metadata}
        answer = self._client.rewrite(f"queued/{key}", f"in-progress/{key}", document, ifGenerationMatch=0)
        if answer.status != 200:
            return False
        self._client.delete(f"queued/{key}")
        self.held[key] = answer.json["resource"]
        return True

    def complete(self, key: str) -> bool:
        self._client.delete(f"dead-letter/{key}")
        return self._delete(self.held.pop(key))

    def dead_letter(self, key: str) -> bool:
        held = self.held.pop(key)
        metadata = self._without_lease(held) | {"failed-time": stamp(self._now())}
        source = {"sourceGeneration": held["generation"]}
        self._client.rewrite(held["name"], f"dead-letter/{key}", {"metadata": metadata}, **source)
        return self._delete(held)

    def requeue(self, key: str) -> bool:
        return self._requeue(key, self.held.pop(key))

    def recover(self, key: str) -> bool:
        """Requeue an orphan; the delete is pinned to the metageneration, too."""
        seen = self._client.get(f"in-progress/{key}").json
        if stamp(self._now()) <= seen["metadata"].get("lease-expiration", ""):
            return False
        return self._requeue(key, seen, ifMetagenerationMatch=seen["metageneration"])

    def _requeue(self, key: str, held: dict[str, Any], **pins: str) -> bool:
        metadata = self._without_lease(held) | {"last-attempted": str(int(self._now()))}
        source = {"sourceGeneration": held["generation"], "ifGenerationMatch": "0"}
        if self._client.rewrite(held["name"], f"queued/{key}", {"metadata": metadata}, **source).status == 412:
            self._merge(key, metadata)
        return self._delete(held, **pins)

    def _delete(self, held: dict[str, Any], **pins: str) -> bool:
        return self._client.delete(held["name"], ifGenerationMatch=held["generation"], **pins).status == 204

    @staticmethod
    def _without_lease(held: dict[str, Any]) -> dict[str, str]:
        return {name: text for name, text in held["metadata"].items() if name not in ("lease-expiration", "owner")}
