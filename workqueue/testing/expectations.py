"""For tests: what is expected of a key. An assertion that fails shows the whole queue."""

from __future__ import annotations

from collections.abc import Iterable

from workqueue.errors import KeyNotFoundError
from workqueue.interface import KeyState, KeyStatus, WorkQueue

__all__ = ["assert_dead_lettered", "assert_gone", "assert_queued", "shown_queue"]

_MOST = 50  # keys of each kind that are shown


async def assert_queued(queue: WorkQueue, key: str, **expected: object) -> KeyState:
    """Pass if `key` is queued, eligible or not, and not in progress; returns its state.

    Args:
        queue: any backend.
        key: the key.
        expected: fields of `KeyState` and what they have to be, such as `priority=3` or `attempts=0`.

    Raises:
        AssertionError: it is elsewhere, or a field is something else; the text shows the queue.
    """
    return await _expect(queue, key, KeyStatus.QUEUED, expected)


async def assert_dead_lettered(queue: WorkQueue, key: str, **expected: object) -> KeyState:
    """Pass if `key` is a dead letter and nothing else; returns its state.

    Args:
        queue: any backend.
        key: the key.
        expected: fields of `KeyState` and what they have to be, such as `attempts=5` or `error="ValueError: no"`.

    Raises:
        AssertionError: it is elsewhere, or a field is something else; the text shows the queue.
    """
    return await _expect(queue, key, KeyStatus.DEAD_LETTER, expected)


async def assert_gone(queue: WorkQueue, key: str) -> None:
    """Pass if `key` is nowhere: it completed, was dropped, or was never enqueued.

    Raises:
        AssertionError: it is somewhere; the text shows the queue.
    """
    state = await _state(queue, key)
    if state is not None:
        raise AssertionError(f"{key!r} is {_named(state.status)}, not gone\n{await shown_queue(queue)}")


async def shown_queue(queue: WorkQueue) -> str:
    """What is in `queue`, a line for each key, at most 50 of a kind."""
    found = await queue.enumerate(_MOST)
    letters = [letter async for letter in found.dead_letters][:_MOST]
    delayed = await queue.delayed(_MOST) if hasattr(queue, "delayed") else ()
    lines = [
        *_lines("in progress", (f"{each.key!r} attempts={each.attempts}" for each in found.in_progress)),
        *_lines("queued", (f"{each.key!r} attempts={each.attempts}" for each in (*found.queued, *found.twins))),
        *_lines("delayed", (f"{each.key!r} not before {each.not_before}, {each.last_error}" for each in delayed)),
        *_lines("dead letter", (f"{each.key!r} attempts={each.attempts} {each.error}" for each in letters)),
    ]
    return "\n".join(lines) or "  the queue is empty"


async def _expect(queue: WorkQueue, key: str, status: KeyStatus, expected: dict[str, object]) -> KeyState:
    state = await _state(queue, key)
    found = _named(state.status) if state is not None else "nowhere"
    if state is None or state.status is not status:
        raise AssertionError(f"{key!r} is {found}, not {_named(status)}\n{await shown_queue(queue)}")
    for name, value in expected.items():
        if getattr(state, name) != value:
            wrong = f"{name} of {key!r} is {getattr(state, name)!r}, not {value!r}"
            raise AssertionError(f"{wrong}\n{await shown_queue(queue)}")
    return state


async def _state(queue: WorkQueue, key: str) -> KeyState | None:
    try:
        return await queue.get(key)
    except KeyNotFoundError:
        return None


def _named(status: KeyStatus) -> str:
    return status.name.lower().replace("_", " ")


def _lines(kind: str, keys: Iterable[str]) -> list[str]:
    return [f"  {kind}: {key.rstrip(', ')}" for key in keys]
