"""Stage 3: wake-ups over HTTP: Pub/Sub pushes a note for each object that a bucket stores, and each asks for a round.

Only notes that queue something are worth a round, and one round is enough for all that came before it began. Unlike a
call of the trigger, a note comes once and is about a key of its own: one that comes right after a round began is not
shed but has the next round, as soon as the trigger's period allows.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from dispatcher.gate import RoundGate
from dispatcher.health import Health
from workqueue.sources.pubsub import MAX_NOTE_BYTES, Note, read_note

__all__ = ["Push"]

_REMEMBERED = 10_000


class Push:
    """The endpoint.

    Args:
        gate: admits the rounds.
        health: says whether the process drains.
    """

    def __init__(self, gate: RoundGate, health: Health) -> None:
        self._gate = gate
        self._health = health
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    async def pushed(self, request: Request, *, wait: bool) -> Response:
        """Answer one push: 2xx acknowledges it, anything else has it delivered again."""
        body = await _read(request)
        if body is None:
            return PlainTextResponse(f"a note has at most {MAX_NOTE_BYTES} bytes\n", 413)
        note = read_note(body)
        if note is None:
            return PlainTextResponse("this is no Pub/Sub push request\n", 400)
        if self._health.draining:  # it began while the body was read
            return PlainTextResponse("draining\n", 503)
        if not note.is_news or _fingerprint(note) in self._seen:
            self._gate.shed()
            return PlainTextResponse("shed: nothing to start\n")
        turn = self._gate.admit_next()
        if turn is None:
            return PlainTextResponse("shed: the next round is on its way\n")
        self._remember(note)
        answer = await turn.answer(wait=wait)
        if answer.status_code >= 500:
            self._seen.pop(_fingerprint(note), None)  # it will be delivered again
        return answer

    def _remember(self, note: Note) -> None:
        self._seen[_fingerprint(note)] = None
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)


def _fingerprint(note: Note) -> bytes:
    """What is remembered of a note: its number may be as long as its body."""
    return blake2b(note.number.encode("utf-8", "surrogatepass"), digest_size=16).digest()


async def _read(request: Request) -> bytes | None:
    """The body, or None if it is too large; a length that was announced is not believed."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_NOTE_BYTES:
            return None
    return body
