"""Stage 1: keeps one replica equal to the API server: list once, then watch, and list again when history was forgotten.

A watch is a promise with gaps: it ends every few minutes, dies without a word, and cannot be resumed from a version
that etcd has compacted (410). So the version of every event and bookmark is remembered, a silent connection is given
up, and after a 410 the next list is compared with what is known: what vanished in the gap is found too.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from workqueue.clock import Clock
from workqueue.sources.kubernetes.api import API
from workqueue.sources.kubernetes.cache import Replica
from workqueue.sources.kubernetes.errors import (
    ForbiddenError,
    GoneError,
    KubernetesError,
    UnreachableError,
    error_of,
)
from workqueue.sources.kubernetes.pieces import pieces

__all__ = ["Changed", "Reflector", "Room"]

log = logging.getLogger(__name__)

_PAGE = 500
_AT_ONCE = 50  # objects of a page between two turns of the event loop
_SILENCE_SECONDS = 90.0  # bookmarks come about once a minute
_WATCH_SECONDS = (240, 480)  # spread, so that the watches of a restarted server do not all end at once
_SHORTEST_WATCH_US = 1_000_000
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.8, 30.0

Changed = Callable[[Sequence[str], bool], None]
"""Called with the keys that a difference concerns; True when nobody knows that anything changed: the first list."""

Room = Callable[[], Awaitable[None]]
"""Awaited before more is read: returns when there is room for it."""


class Reflector:
    """Lists and watches until it is cancelled.

    Args:
        api: the server.
        replica: what is kept equal.
        changed: is called for every difference, after the replica has it.
        room: holds it up while more keys wait than there is room for.
        clock: where time comes from.
    """

    def __init__(self, api: API, replica: Replica, changed: Changed, room: Room, clock: Clock) -> None:
        self._api = api
        self._replica = replica
        self._watch = replica.watch
        self._changed = changed
        self._room = room
        self._clock = clock
        self._revision = ""
        self._page = _PAGE
        self._failures = 0
        self._trouble = ""

    async def run(self) -> None:
        """Keep the replica equal for ever; whatever the API server does, it is asked again."""
        while True:
            try:
                if not self._revision:
                    await self._list()
                await self._follow()
                self._recovered()
            except GoneError as error:
                self._revision = ""
                log.info("listing %s again: %s", self._watch, error)
                await self._pause(error, at_once=self._failures == 0)
            except KubernetesError as error:
                self._complain(error)
                await self._pause(error)

    async def _list(self) -> None:
        path = (await self._api.resource(self._watch.parsed_kind)).path(self._watch.namespace)
        first = not self._replica.synced
        query = {**self._watch.selectors(), "limit": str(self._page)}
        self._replica.begin_listing()
        while True:
            try:
                revision, more = await self._take_page(await self._api.text(path, query), first)
            except GoneError:
                # The pages took longer than etcd remembers. Larger ones take fewer turns, at the price of memory.
                self._page *= 4
                raise
            if not more:
                break
            query["continue"] = more
            await self._room()
        self._changed(self._replica.end_listing(), False)
        self._revision, self._page, self._trouble = revision, _PAGE, ""
        log.info("listed %d of %s", len(self._replica), self._watch)

    async def _take_page(self, text: str, first: bool) -> tuple[str, str]:
        """Take over the objects of one page; returns its version and what continues it."""
        page: dict[str, Any] = {}
        try:
            for place, (object_, its_text) in enumerate(pieces(text, "items", page)):
                if object_ is not None and (keys := self._replica.put(object_, its_text)):
                    self._changed(keys, first)
                if place % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            return str(page["metadata"]["resourceVersion"]), page["metadata"].get("continue", "")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreachableError(f"the list of {self._watch} is no list: {error}") from error

    async def _follow(self) -> None:
        """Watch until the server ends it."""
        path = (await self._api.resource(self._watch.parsed_kind)).path(self._watch.namespace)
        query = {
            **self._watch.selectors(),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._revision,
            "timeoutSeconds": str(random.randint(*_WATCH_SECONDS)),
        }
        began_us, before = self._clock.steady_us(), self._revision
        async with aclosing(self._api.lines(path, query, _SILENCE_SECONDS)) as batches:
            async for lines in batches:
                for line in lines:
                    self._take(line)
                self._recovered()
                await self._room()
                await asyncio.sleep(0)  # what has arrived is read without a pause, and others want to run
        if self._revision == before and self._clock.steady_us() - began_us < _SHORTEST_WATCH_US:
            raise UnreachableError(f"the watch of {self._watch} ended as soon as it began")

    def _take(self, line: bytes) -> None:
        try:
            event: dict[str, Any] = {}
            [(object_, text)] = pieces(line.decode(), "object", event)
            kind = event["type"]
            if kind == "ERROR":
                raise error_of(int(object_.get("code") or 500), str(object_.get("message")))
            revision = object_["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                change = self._replica.remove if kind == "DELETED" else self._replica.put
                if keys := change(object_, text):
                    self._changed(keys, False)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreachableError(f"the watch of {self._watch} sent what is no event: {line[:80]!r}") from error
        self._revision = revision

    def _complain(self, error: KubernetesError) -> None:
        """Say what is wrong once, not at every attempt: an operator acts on the first line."""
        if str(error) != self._trouble:
            self._trouble = str(error)
            level = logging.ERROR if isinstance(error, ForbiddenError) else logging.WARNING
            log.log(level, "watching %s: %s; trying again", self._watch, error)

    def _recovered(self) -> None:
        self._failures = 0
        if self._trouble:
            self._trouble = ""
            log.info("watching %s again", self._watch)

    async def _pause(self, error: KubernetesError, *, at_once: bool = False) -> None:
        longest = min(_FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 8), _LONGEST_PAUSE_SECONDS)
        self._failures += 1
        if not at_once:
            await self._clock.sleep(max(error.retry_after, longest * random.uniform(0.5, 1)))
