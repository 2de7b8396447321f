"""Stage 1: what is known of the objects of one watch: a source writes a `Replica`, reconcilers read a `Cache` of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from workqueue.errors import InvalidKeyError
from workqueue.key import validate_key
from workqueue.sources.kubernetes.kinds import name_of
from workqueue.sources.kubernetes.watches import IndexOf, Watch, whole

__all__ = ["Cache", "Replica"]

log = logging.getLogger(__name__)

_Object = dict[str, Any]


class _Known:
    """One object: its version, the text of what is kept of it, the keys that it stands for (None: its own name), when
    it was listed, and its values in each index.
    """

    __slots__ = ("keys", "listing", "text", "values", "version")

    def __init__(self, version: str, listing: int) -> None:
        self.version = version
        self.listing = listing
        self.text: str | None = None
        self.keys: tuple[str, ...] | None = None
        self.values: tuple[tuple[str, ...], ...] = ()


class Replica:
    """The objects of one watch as the API server last sent them, and which keys a difference concerns."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.synced = False
        self._known: dict[str, _Known] = {}
        self._indexes: dict[str, dict[str, set[str]]] = {name: {} for name in watch.indexes}
        self._listing = 0

    def __len__(self) -> int:
        return len(self._known)

    def begin_listing(self) -> None:
        """What is not `put` from now until `end_listing` is gone."""
        self._listing += 1

    def end_listing(self) -> list[str]:
        """Forget what the listing did not have; returns the keys that this concerns."""
        gone = [name for name, known in self._known.items() if known.listing != self._listing]
        self.synced = True
        return [key for name in gone for key in self._forget(name)]

    def put(self, object_: _Object, text: str) -> Sequence[str]:
        """Take over an object; returns the keys that a change concerns, those that it stood for before included.

        Args:
            object_: as parsed; it is not kept.
            text: its JSON.
        """
        name, version = name_of(object_), object_["metadata"]["resourceVersion"]
        before = self._known.get(name)
        if before is not None and before.version == version:
            before.listing = self._listing
            return ()
        after, keys = _Known(version, self._listing), self._keys(name, object_)
        if keys != (name,):
            after.keys = keys
        if self.watch.indexes:
            after.values = tuple(self._values(values_of, name, object_) for values_of in self.watch.indexes.values())
            self._index(name, before.values if before is not None else (), after.values)
        after.text = self._kept(name, object_, text)
        self._known[name] = after
        if before is None or before.keys is None:
            return keys
        return tuple(dict.fromkeys((*before.keys, *keys)))

    def remove(self, object_: _Object, text: str) -> Sequence[str]:
        """Forget an object; returns the keys that it stood for, in its last state included."""
        name = name_of(object_)
        return tuple(dict.fromkeys((*self._forget(name), *self._keys(name, object_))))

    def keys(self) -> Iterator[str]:
        """Every key that some object stands for; a key comes up as often as there are such objects."""
        for name, known in self._known.items():
            yield from (name,) if known.keys is None else known.keys

    def names(self) -> Iterable[str]:
        """The `namespace/name` of every object."""
        return self._known.keys()

    def text(self, name: str) -> str | None:
        """The JSON of what is kept of an object."""
        known = self._known.get(name)
        return None if known is None else known.text

    def indexed(self, index: str, value: str) -> Iterable[str]:
        """The names under a value of an index."""
        return self._indexes[index].get(value, ())

    def _forget(self, name: str) -> Sequence[str]:
        known = self._known.pop(name, None)
        if known is None:
            return ()
        self._index(name, known.values, ())
        return (name,) if known.keys is None else known.keys

    # Mapping, keep and indexes are somebody else's code: what they get wrong costs one object, not the watch.

    def _keys(self, name: str, object_: _Object) -> tuple[str, ...]:
        try:
            return tuple([validate_key(key) for key in self.watch.keys(object_)])
        except InvalidKeyError as error:
            log.error("%s %s stands for a key that is none, and is not enqueued: %s", self.watch.kind, name, error)
        except Exception:
            log.exception("the mapping of %s raised for %s, which is not enqueued", self.watch.kind, name)
        return ()

    def _kept(self, name: str, object_: _Object, text: str) -> str | None:
        if self.watch.keep is whole:
            return text
        try:
            kept = self.watch.keep(object_)
            return None if kept is None else json.dumps(kept, separators=(",", ":"))
        except Exception:
            log.exception("what is to be kept of %s %s is unknown: nothing is", self.watch.kind, name)
            return None

    def _values(self, values_of: IndexOf, name: str, object_: _Object) -> tuple[str, ...]:
        try:
            return tuple(values_of(object_))
        except Exception:
            log.exception("an index of %s raised for %s, which it will not find", self.watch.kind, name)
            return ()

    def _index(self, name: str, before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]) -> None:
        for found, values in zip(self._indexes.values(), before, strict=False):
            for value in values:
                if names := found.get(value):
                    names.discard(name)
                    if not names:
                        del found[value]
        for found, values in zip(self._indexes.values(), after, strict=False):
            for value in values:
                found.setdefault(value, set()).add(name)


class Cache:
    """The objects of one watch, for reading. Each is parsed when it is read: changing it changes nothing here.

    It may be a moment behind the API server, as the reconciler's own last write is. So a write is conditional on the
    version that was read (`resourceVersion`), or it is such that doing it twice does no harm.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def __len__(self) -> int:
        return len(self._replica)

    def __contains__(self, name: str) -> bool:
        return name in self._replica.names()

    def __iter__(self) -> Iterator[str]:
        """The `namespace/name` of every object."""
        return iter(tuple(self._replica.names()))

    def get(self, name: str) -> _Object | None:
        """The object called `namespace/name`, or None: it is not there, or nothing is kept of it."""
        text = self._replica.text(name)
        if text is None:
            return None
        found: _Object = json.loads(text)
        return found

    def find(self, index: str, value: str) -> list[_Object]:
        """The objects that have `value` in `index`, by name.

        Raises:
            KeyError: the watch has no such index.
        """
        found = [self.get(name) for name in sorted(self._replica.indexed(index, value))]
        return [object_ for object_ in found if object_ is not None]
