"""Stage 7: Kubernetes Events about keys that were given up, where `kubectl describe` shows them."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, get_args

from dispatcher.broker import FLUSH_TIMEOUT
from dispatcher.controller.cluster import Cluster
from dispatcher.error_events import ErrorEvent, ErrorEvents
from dispatcher.lifecycle import LifecycleEvents, asked_for
from dispatcher.waiting import all_done
from workqueue.metrics import EventResult
from workqueue.sources.kubernetes import KubernetesError, Object

__all__ = ["AllErrors", "KubernetesEvents"]

log = logging.getLogger(__name__)

_PATH = "/apis/events.k8s.io/v1/namespaces/{}/events"
_IN_FLIGHT = 20
_REASONS = {"dead-lettered": "DeadLettered", "expired": "Expired", "dropped": "Dropped"}
_NOTE_BYTES = 1024  # the API server refuses longer ones


class KubernetesEvents:
    """Reports a key that was dead-lettered or dropped as an Event about its object. Needs the verb create on events.

    Best effort: while 20 are on their way, or the object is unknown, an event is dropped, counted and logged.

    Args:
        cluster: knows the objects.
        instance: which process reports.
    """

    def __init__(self, cluster: Cluster, instance: str) -> None:
        self.results: dict[EventResult, int] = {"sent": 0, "failed": 0, "dropped": 0}
        self._cluster = cluster
        self._instance = instance
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, event: ErrorEvent) -> None:
        """Take an event (see `ErrorEvents.send`); failures that are retried are not reported."""
        if event.failure.action not in _REASONS:
            return
        subject = self._cluster.subject(event.key)
        if subject is None or len(self._sending) >= _IN_FLIGHT:
            self.results["dropped"] += 1
            log.warning("no Kubernetes Event says that %r was %s", event.key, event.failure.action)
            return
        task = asyncio.get_running_loop().create_task(self._post(_event(event, subject, self._cluster, self._instance)))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def flush(self, timeout: timedelta = FLUSH_TIMEOUT) -> None:
        """Return once everything taken is sent or lost (see `ErrorEvents.flush`)."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=timeout.total_seconds())

    async def give_up(self) -> None:
        """Drop what is not sent yet."""
        for task in tuple(self._sending):
            task.cancel()
        await all_done(self._sending)

    async def _post(self, body: Object) -> None:
        try:
            await self._cluster.api.request("POST", _PATH.format(body["metadata"]["namespace"]), body=body)
            self.results["sent"] += 1
        except asyncio.CancelledError:
            self.results["dropped"] += 1
            raise
        except KubernetesError as error:
            self.results["failed"] += 1
            log.warning("a Kubernetes Event was not taken: %s", error)


def _event(event: ErrorEvent, subject: Object, cluster: Cluster, instance: str) -> Object:
    metadata, namespace = subject["metadata"], subject["metadata"].get("namespace", "default")
    regarding: dict[str, Any] = {
        "apiVersion": subject["apiVersion"],
        "kind": subject["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resourceVersion": metadata["resourceVersion"],
    }
    if "namespace" in metadata:
        regarding["namespace"] = namespace
    text = f"after {event.attempts} attempts: {event.failure.error}"
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name'][:200]}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
        "eventTime": event.occurred.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "Warning",
        "reason": _REASONS[event.failure.action],
        "action": "Reconcile",
        "note": text.encode()[:_NOTE_BYTES].decode(errors="ignore"),
        "reportingController": cluster.name,
        "reportingInstance": instance[:128],
        "regarding": regarding,
    }


class _Sum(Mapping[EventResult, int]):
    """What became of events, added up whenever somebody looks: a dispatcher's metrics keep it."""

    def __init__(self, parts: Sequence[Mapping[EventResult, int]]) -> None:
        self._parts = parts

    def __getitem__(self, result: EventResult) -> int:
        return sum(part[result] for part in self._parts)

    def __iter__(self) -> Iterator[EventResult]:
        return iter(get_args(EventResult))

    def __len__(self) -> int:
        return len(get_args(EventResult))


class AllErrors:
    """Sends each failure to several places."""

    def __init__(self, places: Sequence[ErrorEvents]) -> None:
        self._places = places
        self.results = _Sum([place.results for place in places])

    @property
    def lifecycle(self) -> LifecycleEvents | None:
        """The first place that asks for state changes."""
        return next((found for place in self._places if (found := asked_for(place)) is not None), None)

    def send(self, event: ErrorEvent) -> None:
        """Take an event (see `ErrorEvents.send`)."""
        for place in self._places:
            place.send(event)

    async def flush(self, timeout: timedelta = FLUSH_TIMEOUT) -> None:
        """Return once everything taken is sent or lost, at the latest after `timeout`."""
        await asyncio.gather(*(place.flush(timeout) for place in self._places))

    async def give_up(self) -> None:
        """Drop what is not sent yet."""
        await asyncio.gather(*(place.give_up() for place in self._places))
