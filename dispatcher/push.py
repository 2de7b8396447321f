"""Stage 3: wake-ups over HTTP: Pub/Sub pushes a note for each object that a bucket stores, and each asks for a round.

A bucket makes a note of every change, of most keys several: when it is queued, started, settled. Only those that queue
something are worth a round, and one round is enough for all that came before it began.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from workqueue.clock import Clock

__all__ = ["MAX_NOTE_BYTES", "Note", "Push", "read_note"]

MAX_NOTE_BYTES = 64 * 1024
_REMEMBERED = 10_000
_Ended = BaseException | None
_QUEUED = re.compile(r"(?:[^\n]*?/)?queued/")
_STORED = frozenset({"", "OBJECT_FINALIZE", "OBJECT_METADATA_UPDATE"})


@dataclass(frozen=True, slots=True)
class Note:
    """What was pushed.

    Args:
        number: Pub/Sub's own, the same when a note is delivered again.
        event: what happened to an object, such as `OBJECT_FINALIZE`; empty for a note about no object.
        name: the object's.
    """

    number: str
    event: str = ""
    name: str = ""

    @property
    def is_news(self) -> bool:
        """Whether there may be a key to start; a note about no object was sent by somebody who means it."""
        return self.event in _STORED and (not self.event or _QUEUED.match(self.name) is not None)


def read_note(body: bytes) -> Note | None:
    """The note in a push request's body; None if it is none.

    Sources: https://cloud.google.com/pubsub/docs/push#receive_push,
    https://cloud.google.com/storage/docs/pubsub-notifications#attributes
    """
    try:
        message = json.loads(body)["message"]
        attributes = message.get("attributes") or {}
        number = str(message.get("messageId") or message["message_id"])
        return Note(number, str(attributes.get("eventType", "")), str(attributes.get("objectId", "")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


class Push:
    """The endpoint: a round for what was pushed, one for all that is pushed while it waits for its turn.

    Unlike a call of the trigger, a note comes once and about a key of its own: one that comes right after a round began
    is not shed but has the next round, as soon as the trigger's period allows.

    Args:
        clock: what the period is waited for by.
        due_us: microseconds until the next round may begin.
        begin: begins it; the task ends with what failed the round, or None.
        shed: counts a note that is acknowledged without a round of its own.
    """

    def __init__(
        self,
        clock: Clock,
        due_us: Callable[[], int],
        begin: Callable[[], asyncio.Task[_Ended]],
        shed: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._due_us = due_us
        self._begin = begin
        self._shed = shed
        self._next: asyncio.Task[asyncio.Task[_Ended]] | None = None
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._draining = False

    async def pushed(self, request: Request) -> Response:
        """Answer one push: 2xx acknowledges it, anything else has it delivered again."""
        body = await _read(request)
        if body is None:
            return PlainTextResponse(f"a note has at most {MAX_NOTE_BYTES} bytes\n", 413)
        note = read_note(body)
        if note is None:
            return PlainTextResponse("this is no Pub/Sub push request\n", 400)
        if self._draining:  # it began while the body was read
            return PlainTextResponse("draining\n", 503)
        if not note.is_news or note.number in self._seen or self._next is not None:
            self._shed()
            return PlainTextResponse("shed: nothing to start, or the next round is on its way\n")
        self._remember(note)
        self._next = asyncio.get_running_loop().create_task(self._wait_and_begin())
        return await self._answer(note, self._next, wait=request.query_params.get("wait", "true").lower() != "false")

    def drain(self) -> None:
        """Begin no round any more: notes that wait for one are refused, and delivered to somebody else."""
        self._draining = True
        if self._next is not None:
            self._next.cancel()

    async def _answer(self, note: Note, waiting: asyncio.Task[asyncio.Task[_Ended]], *, wait: bool) -> Response:
        await asyncio.wait((waiting,))
        if waiting.cancelled():
            self._seen.pop(note.number, None)
            return PlainTextResponse("draining\n", 503)
        running = waiting.result()
        if not wait:
            return PlainTextResponse("started\n", 202)
        await asyncio.wait((running,))
        error = running.result()
        if error is None:
            return PlainTextResponse("ok\n")
        self._seen.pop(note.number, None)
        return PlainTextResponse(f"{type(error).__name__}: {error}\n", 500)

    async def _wait_and_begin(self) -> asyncio.Task[_Ended]:
        try:
            while (due_us := self._due_us()) > 0:
                await self._clock.sleep(due_us / 1e6)
        finally:
            self._next = None  # what is pushed from now on may be too late for this round
        return self._begin()

    def _remember(self, note: Note) -> None:
        self._seen[note.number] = None
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)


async def _read(request: Request) -> bytes | None:
    """The body, or None if it is too large; a length that was announced is not believed."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_NOTE_BYTES:
            return None
    return body
