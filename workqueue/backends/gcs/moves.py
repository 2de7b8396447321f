"""Every way of a key from one place to the next, as requests of which any one may fail or be the last.

A bucket moves nothing in one step: a move is a copy and then a delete. Between them the key is in both places, which
is safe, since nobody starts a key that is in progress, and what is queued too many times runs once too often. So the
copy always comes first, and every request is pinned to the version that the move began with; whoever comes second
finds its pin gone and leaves everything as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from workqueue.backends.gcs.address import Place
from workqueue.backends.gcs.api.objects import Deleted, Objects, Stored
from workqueue.backends.gcs.api.preconditions import Pin
from workqueue.backends.gcs.listing.packed import Candidate
from workqueue.backends.gcs.metadata import (
    PRESENT,
    Stamps,
    changes,
    dead_letter_metadata,
    entry_of,
    in_progress_metadata,
    queued_metadata,
)
from workqueue.errors import StoreUnavailableError
from workqueue.rules import DeadLetter, Entry, merge_incoming, merge_into_twin, redriven, spared, started

__all__ = ["Begun", "Moves", "Placed", "Returning"]

_MOST_ROUNDS = 100  # of a merge that others keep getting ahead of; each round is two requests lost to a change

_Rule = Callable[[Entry], Entry]


@dataclass(frozen=True, slots=True)
class Placed:
    """The queued entry of a key as it is now; `deduped`: it was there before."""

    stored: Stored
    entry: Entry
    deduped: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """A started key: its object in progress, and its entry with the payload read."""

    stored: Stored
    entry: Entry


@dataclass(frozen=True, slots=True)
class Returning:
    """What goes back to the queue.

    Args:
        source: the object in progress, as far as it must be unchanged.
        entry: what is to be queued; its payload may be `PRESENT`.
        base: the metadata it had in progress.
        release: hand it back unspent.
        attempted_us: when the attempt ended; 0 = it does not count as one.
    """

    source: Pin
    entry: Entry
    base: Mapping[str, str]
    release: bool = False
    attempted_us: int = 0


class Moves:
    """The moves within one bucket.

    Args:
        objects: the bucket.
        place: the names in it.
    """

    def __init__(self, objects: Objects, place: Place) -> None:
        self._objects = objects
        self._place = place

    # into the queue

    async def enqueue(self, incoming: Entry) -> Placed:
        """Store an enqueue, merged with the queued entry of its key.

        Sending it again, after an answer was lost, merges it with itself, which changes nothing.
        """
        metadata = queued_metadata(incoming, {})
        for _ in range(_MOST_ROUNDS):
            made = (await self._objects.create(self._queued(incoming.key), metadata, incoming.payload or b"")).made
            if made is not None:
                return Placed(made, incoming, deduped=False)
            placed = await self._merge(incoming.key, lambda existing: merge_incoming(existing, incoming))
            if placed is not None:
                return placed
        raise StoreUnavailableError(f"key {incoming.key!r} could not be queued: others keep changing it")

    async def _merge(self, key: str, rule: _Rule) -> Placed | None:
        """Apply `rule` to the queued entry of `key`; None if it went or was changed meanwhile."""
        stored = await self._objects.read(self._queued(key))
        return await self._change(key, stored, rule) if stored is not None else None

    async def _change(self, key: str, stored: Stored, rule: _Rule) -> Placed | None:
        """Apply `rule` to a queued entry as it was read; None if it went or was changed since."""
        existing = entry_of(stored.metadata, key, stored.created_us, stored.size)
        merged = rule(existing)
        if merged == existing:
            return Placed(stored, existing, deduped=True)
        metadata = queued_metadata(merged, stored.metadata)
        if merged.payload is existing.payload:
            made = (await self._objects.patch(stored.pin, changes(stored.metadata, metadata))).made
        else:
            made = (await self._objects.replace(stored.pin, metadata, merged.payload or b"")).made
        return Placed(made, merged, deduped=True) if made is not None else None

    # out of the queue

    async def start(self, candidate: Candidate, token: str, owner: str, lease: Stamps) -> Begun | None:
        """Take a key into progress under `token`; None if another was faster, or the entry changed since it was read.

        Raises:
            StoreUnavailableError: it is unknown whether the queued entry is gone: the key must be left to its lease. If
                it were handed back, or worked on, a delete of ours that lands late could take an event with it.
        """
        entry = started(candidate.entry)
        source = Pin(self._queued(candidate.key), *candidate.version)
        target = self._in_progress(candidate.key)
        metadata = in_progress_metadata(entry, candidate.stored.metadata, token, owner, lease)
        copied = await self._objects.copy(source, target, metadata)
        made = copied.made or (await self._with_token(target, token) if copied.resent else None)
        if made is None:
            return None
        await self._objects.delete(source)  # if it changed since the copy, an event came: it stays, as a twin
        if entry.payload is PRESENT:
            body = await self._objects.read_body(Pin(target, made.generation))
            if body is None:
                return None
            entry = replace(entry, payload=body)
        return Begun(made, entry)

    async def reread(self, candidate: Candidate) -> Candidate | None:
        """The queued entry of a key as it is now, or None."""
        stored = await self._objects.read(self._queued(candidate.key))
        if stored is None:
            return None
        entry = entry_of(stored.metadata, candidate.key, stored.created_us, stored.size)
        return Candidate(candidate.key, stored, entry)

    async def _with_token(self, name: str, token: str) -> Stored | None:
        """The object that a copy of ours made whose answer was lost."""
        found = await self._objects.read(name)
        return found if found is not None and found.metadata.get("lease-token") == token else None

    # out of progress

    async def complete(self, source: Pin, letter: int | None) -> Deleted:
        """End an attempt for good, with the dead letter of the key.

        Args:
            source: the object in progress.
            letter: the dead letter's generation; 0 = there is none, None = nobody knows.
        """
        name = self._place.dead + source.name[len(self._place.in_progress) :]
        if letter is None:  # looked up first: one that is written once the key is no longer ours is not ours to delete
            found = await self._objects.read(name)
            letter = found.generation if found is not None else 0
        deleted = await self._objects.delete(source)
        if letter and deleted.by_us:
            await self._objects.delete(Pin(name, letter))
        return deleted

    async def requeue(self, back: Returning) -> tuple[Deleted, Placed | None]:
        """Move a key from in progress to the queue, merged with a twin.

        When the lease turns out to be gone only at the delete, what was queued stays: an event may have been merged
        into it, and a run too many is safe where a lost key is not.
        """
        key, metadata = back.entry.key, queued_metadata(back.entry, back.base, back.attempted_us)
        for _ in range(_MOST_ROUNDS):
            made = (await self._objects.copy(back.source, self._queued(key), metadata)).made
            placed = Placed(made, back.entry, deduped=False) if made is not None else None
            if placed is None:
                if not await self._is_current(back.source):
                    return Deleted.GONE, None
                placed = await self._merge_into_twin(back)
            if placed is not None:
                return await self._objects.delete(back.source), placed
        raise StoreUnavailableError(f"key {key!r} could not be queued again: others keep changing it")

    async def _merge_into_twin(self, back: Returning) -> Placed | None:
        entry = back.entry
        if entry.payload is PRESENT:
            body = await self._objects.read_body(back.source)
            if body is None:
                return None  # the next round finds out why
            entry = replace(entry, payload=body)
        return await self._merge(entry.key, lambda twin: merge_into_twin(twin, entry, release=back.release))

    async def _is_current(self, pin: Pin) -> bool:
        found = await self._objects.read(pin.name)
        return found is not None and pin in (found.pin, Pin(pin.name, found.generation))

    async def dead_letter(self, source: Pin, letter: DeadLetter, base: Mapping[str, str]) -> tuple[Deleted, int]:
        """Move a key from in progress to the dead letters; also returns the letter's generation.

        A letter that was written although the lease is gone stays: somebody else may have given the key up, too.
        """
        key = letter.entry.key
        copied = await self._objects.copy(source, self._dead(key), dead_letter_metadata(letter, base), fresh=False)
        if copied.made is None:
            return Deleted.GONE, 0
        await self._spare_twin(key)
        return await self._objects.delete(source), copied.made.generation

    async def _spare_twin(self, key: str) -> None:
        for _ in range(_MOST_ROUNDS):
            twin = await self._objects.read(self._queued(key))
            if twin is None or await self._change(key, twin, spared) is not None:
                return
        raise StoreUnavailableError(f"the queued entry of {key!r} could not be updated: others keep changing it")

    # out of the dead letters

    async def redrive(self, source: Pin, letter: DeadLetter, base: Mapping[str, str], now_us: int) -> Placed | None:
        """Queue a dead-lettered key and remove the letter; None if the letter is not this one any more."""
        key, back = letter.entry.key, redriven(letter, None, now_us)
        metadata = queued_metadata(back, base)
        for _ in range(_MOST_ROUNDS):
            made = (await self._objects.copy(source, self._queued(key), metadata)).made
            placed = Placed(made, back, deduped=False) if made is not None else None
            if placed is None:
                if not await self._is_current(source):
                    return None
                placed = await self._merge(key, lambda queued: redriven(letter, queued, now_us))
            if placed is not None:
                return placed if (await self._objects.delete(source)).by_us else None
        raise StoreUnavailableError(f"key {key!r} could not be queued: others keep changing it")

    # names

    def _queued(self, key: str) -> str:
        return self._place.queued + key

    def _in_progress(self, key: str) -> str:
        return self._place.in_progress + key

    def _dead(self, key: str) -> str:
        return self._place.dead + key
