"""The `/_test/` endpoints: what a test in another process may ask of the emulator and do to it."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from tests.fakes.gcs.clock import ServerClock
from tests.fakes.gcs.errors import invalid, no_such_path
from tests.fakes.gcs.faults import Fault, FaultPlan
from tests.fakes.gcs.log import RequestLog
from tests.fakes.gcs.requests import parse_json
from tests.fakes.gcs.service import Reply
from tests.fakes.gcs.store import Store, WriteLimit
from tests.fakes.gcs.tokens import TokenDesk

PREFIX = "/_test/"
FAULT_FIELDS = {item.name for item in dataclasses.fields(Fault) if item.init} - {"before", "after"}


class Admin:
    """Answers the `/_test/` requests. Bodies and answers are JSON.

    | request | does |
    |---|---|
    | GET counts | `{"requests": {…}, "classes": {…}}` |
    | GET log | every request: operation, bucket, name, source, status, fault |
    | GET dump?bucket=B&prefix=P | every object resource |
    | POST fill {bucket, names \\| prefix+count, metadata} | stores many empty objects |
    | POST remove {bucket, prefix} | removes objects |
    | POST faults {Fault's fields, without hooks} | plans a fault |
    | GET faults · DELETE faults | lists them · clears them, releasing what hangs |
    | POST release | releases what hangs, and keeps the faults |
    | GET clock · POST clock {advance \\| set, freeze} | the server's time |
    | POST settings {denied, principal, required_token, writes_per_second, burst} | any of them |
    | POST reset | counts, log and faults |
    """

    def __init__(self, store: Store, faults: FaultPlan, log: RequestLog, tokens: TokenDesk, clock: ServerClock) -> None:
        self._store = store
        self._faults = faults
        self._log = log
        self._tokens = tokens
        self._clock = clock
        self._planned: list[Fault] = []
        self._verbs = {
            ("GET", "counts"): self._counts,
            ("GET", "log"): lambda _: [dataclasses.asdict(entry) for entry in self._log.entries],
            ("GET", "dump"): self._dump,
            ("POST", "fill"): self._fill,
            ("POST", "remove"): lambda body: {"removed": store.remove(body["bucket"], body.get("prefix", ""))},
            ("GET", "faults"): lambda _: [{"label": fault.label, "seen": fault.seen} for fault in self._planned],
            ("POST", "faults"): self._plan,
            ("DELETE", "faults"): self._clear,
            ("POST", "release"): self._release,
            ("GET", "clock"): self._read_clock,
            ("POST", "clock"): self._set_clock,
            ("POST", "settings"): self._set,
            ("POST", "reset"): self._reset,
        }

    def answer(self, method: str, raw_path: str, body: bytes) -> Reply:
        """Answer one request. Raises: ApiError 404, or 400 for a body that does not fit."""
        path, _, query = raw_path.removeprefix(PREFIX).partition("?")
        verb = self._verbs.get((method, path))
        if verb is None:
            raise no_such_path()
        try:
            return Reply(200, json.dumps(verb({**dict(parse_qsl(query)), **parse_json(body)})).encode())
        except (KeyError, TypeError, ValueError) as mistake:
            raise invalid(f"{method} {path}: {mistake!r}") from mistake

    def _counts(self, _: dict[str, Any]) -> Any:
        return {"requests": dict(self._log.requests), "classes": dict(self._log.classes)}

    def _dump(self, body: dict[str, Any]) -> Any:
        return [item.resource("") for item in self._store.snapshot(body["bucket"], body.get("prefix", "")).values()]

    def _fill(self, body: dict[str, Any]) -> Any:
        names = body["names"] if "names" in body else [f"{body['prefix']}{i:09d}" for i in range(body["count"])]
        return {"stored": self._store.fill(body["bucket"], names, body.get("metadata"))}

    def _plan(self, body: dict[str, Any]) -> Any:
        if not body.keys() <= FAULT_FIELDS:
            raise ValueError(f"a fault has no {sorted(body.keys() - FAULT_FIELDS)}")
        self._planned.append(self._faults.add(Fault(**body)))
        return {"planned": len(self._planned)}

    def _clear(self, _: dict[str, Any]) -> Any:
        self._faults.clear()
        self._planned.clear()
        return {}

    def _release(self, _: dict[str, Any]) -> Any:
        for fault in self._planned:
            fault.release()
        return {}

    def _read_clock(self, _: dict[str, Any]) -> Any:
        return {"now": self._clock.now()}

    def _set_clock(self, body: dict[str, Any]) -> Any:
        if body.get("freeze"):
            self._clock.freeze()
        if "set" in body:
            self._clock.set(datetime.fromisoformat(body["set"]))
        self._clock.advance(float(body.get("advance", 0.0)))
        return {"now": self._clock.now()}

    def _set(self, body: dict[str, Any]) -> Any:
        if "denied" in body:
            self._store.denied = set(body["denied"])
        if "principal" in body:
            self._store.principal = body["principal"]
        if "required_token" in body:
            self._tokens.required = body["required_token"]
        if "writes_per_second" in body:
            rate = body["writes_per_second"]
            self._store.write_limit = WriteLimit(rate, body.get("burst", 1)) if rate else None
        return {}

    def _reset(self, _: dict[str, Any]) -> Any:
        self._log.reset()
        return self._clear({})
