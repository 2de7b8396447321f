"""Pages that change something: one key, those selected, the settings stored with the queue. Each logs who did it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from starlette.responses import Response

from workqueue.errors import InvalidOptionsError
from workqueue.options import Options
from workqueue.paging import MAX_LIMIT, Place
from workqueue.safe_text import visible
from workqueue.sweeping import Act, sweep
from workqueue.throttle import Configuration
from workqueue.web.console.filters import duration_of, place_of
from workqueue.web.console.links import address, is_within, keys_of
from workqueue.web.console.verbs import Verb, handle_at, verb_named
from workqueue.web.console.visit import Visit

__all__ = ["act", "configure", "enqueue"]

log = logging.getLogger(__name__)

_REASONS = 3


async def act(visit: Visit) -> Response:
    """Do one verb to the keys that were named; a verb with a warning asks first."""
    verb, place = verb_named(visit.posted("verb")), place_of(visit.posted("place"))
    keys = keys_of(visit.form.get("at", ()))
    if place not in verb.places:
        raise InvalidOptionsError(f"{verb.name} does not suit {place} keys")
    if not 1 <= len(keys) <= MAX_LIMIT:
        raise InvalidOptionsError(f"select 1 to {MAX_LIMIT:,} keys")
    if verb.warning and visit.posted("sure") != "yes":
        return visit.page("confirm.html", watched=visit.watched, verb=verb, place=place, keys=keys)
    reasons: dict[str, str] = {}
    await sweep(_acts(visit, verb, place, keys), reasons.__setitem__)
    return visit.back(_from(visit, place), _account(verb, reasons))


async def _acts(visit: Visit, verb: Verb, place: Place, keys: Sequence[str]) -> AsyncIterator[tuple[str, Act]]:
    for key in dict.fromkeys(keys):
        yield key, partial(_one, visit, verb, place, key)


async def _one(visit: Visit, verb: Verb, place: Place, key: str) -> str:
    """Do it to one key; returns why not, or ''."""
    watched = visit.watched
    handle = handle_at(await watched.queue.find(key), place)
    reason = f"it is not {place} any more" if handle is None else await verb.act(watched.queue, handle)
    log.info(
        "%s %s by %s: %s",
        *(verb.name, visible(key), visit.who, reason or verb.done),
        extra={"queue": watched.name, "key": key, "who": visit.who},
    )
    return reason


def _account(verb: Verb, reasons: Mapping[str, str]) -> str:
    """What is said of keys, each with '' or why it was not done."""
    failed = [f"{visible(key)}: {reason}" for key, reason in reasons.items() if reason]
    done = len(reasons) - len(failed)
    said = f"{done} {'key' if done == 1 else 'keys'} {verb.done}"
    if failed:
        more = f"; and {len(failed) - _REASONS} more" if len(failed) > _REASONS else ""
        said += f"; not {verb.done}: {'; '.join(failed[:_REASONS])}{more}"
    return said


def _from(visit: Visit, place: Place) -> str:
    """The page that was acted from."""
    back = visit.posted("back")
    return back if is_within(back) else address("q", visit.watched.name, "keys", place)


async def enqueue(visit: Visit) -> Response:
    """Put one key into the queue."""
    delay = duration_of("delay", visit.posted("delay"))
    key = next(iter(keys_of(visit.form.get("at", ()))), visit.posted("key").strip())
    payload = visit.posted("payload").replace("\r\n", "\n")  # browsers end the lines of a form so
    not_before = None if delay is None else datetime.now(UTC) + delay
    options = Options(visit.number("priority") or 0, not_before, payload=payload.encode() if payload else None)
    await visit.watched.queue.queue(key, options)
    log.info(
        "enqueue %s by %s", visible(key), visit.who, extra={"queue": visit.watched.name, "key": key, "who": visit.who}
    )
    return visit.back(address("q", visit.watched.name, "key", key=key), "enqueued")


async def configure(visit: Visit) -> Response:
    """Pause, resume, or set the limits stored with the queue."""
    watched, wanted = visit.watched, visit.posted("change")
    stored = await watched.queue.configuration()
    match wanted:
        case "pause" | "resume":
            changed = replace(stored, paused=wanted == "pause")
        case "limits":
            changed = Configuration(
                visit.number("concurrency"), stored.paused, visit.number("starts_per_second", float)
            )
        case _:
            raise InvalidOptionsError(f"there is no change {wanted!r}")
    await watched.queue.configure(changed)
    log.info("%s by %s: %s", wanted, visit.who, changed, extra={"queue": watched.name, "who": visit.who})
    return visit.back(address("q", watched.name), {"pause": "paused", "resume": "resumed"}.get(wanted, "limits stored"))
