"""Planned trouble: what goes wrong with which request, and who else acts in the middle of it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.fakes.gcs.requests import Call

# A plain function runs in a thread of its own, so it may call the server; a coroutine function runs on the event loop
# that was running when the fault was planned (the test's), so it may use the test's clients.
Hook = Callable[[Call], Any] | Callable[[Call], Awaitable[Any]]
Stage = Literal["", "before", "after"]


@dataclass(slots=True, eq=False)
class Fault:
    """One piece of trouble. First the requests it meets, then what it does to them; actions combine.

    Attributes:
        operation: `insert`, `copy`, …; several joined by `|`; empty for any.
        method: the HTTP method; empty for any.
        prefix: what the object's name starts with; the destination for a copy, the prefix parameter for a list.
        source: what the name of a copy's source starts with.
        nth: the first matching request to hit, counted from 1 since the fault was planned.
        times: how many to hit from there on; None for all of them.
        delay: seconds to wait before processing.
        before: a hook called before processing.
        after: a hook called after processing and before the answer.
        hang: stop there until `release()`.
        status: answer with this HTTP status and do not process.
        drop: close the connection `before` processing, or `after` it (a lost answer).
    """

    operation: str = ""
    method: str = ""
    prefix: str = ""
    source: str = ""
    nth: int = 1
    times: int | None = 1
    delay: float = 0.0
    before: Hook | None = None
    after: Hook | None = None
    hang: Stage = ""
    status: int = 0
    drop: Stage = ""
    seen: int = field(default=0, init=False)
    arrived: threading.Event = field(default_factory=threading.Event, init=False)
    _released: threading.Event = field(default_factory=threading.Event, init=False)
    _wakers: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=list, init=False)
    _home: asyncio.AbstractEventLoop | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        try:
            self._home = asyncio.get_running_loop()
        except RuntimeError:  # planned by a synchronous test, which has no coroutines to run
            self._home = None

    @property
    def label(self) -> str:
        """What the log calls it."""
        parts = (self.drop and f"drop {self.drop}", self.hang and f"hang {self.hang}", str(self.status or ""))
        return " ".join(part for part in parts if part) or "hook"

    def matches(self, call: Call) -> bool:
        """Whether the request is one of those this fault counts."""
        return (
            (not self.operation or call.operation in self.operation.split("|"))
            and self.method in ("", call.method)
            and call.name.startswith(self.prefix)
            and call.source.startswith(self.source)
        )

    def hits(self) -> bool:
        """Count one more matching request; whether it is one to hit."""
        self.seen += 1
        return self.seen >= self.nth and (self.times is None or self.seen < self.nth + self.times)

    def release(self) -> None:
        """Let every request that hangs here go on, now and from now on. Any thread may call it."""
        self._released.set()
        for loop, event in self._wakers:
            loop.call_soon_threadsafe(event.set)

    def wait(self, timeout: float = 10.0) -> None:
        """Block until a request hangs here or has been hit. Raises: TimeoutError after `timeout` seconds."""
        if not self.arrived.wait(timeout):
            raise TimeoutError(f"no request reached {self}")

    async def wait_async(self, timeout: float = 10.0) -> None:
        """`wait`, for a test that runs on an event loop."""
        await asyncio.to_thread(self.wait, timeout)

    async def act(self, stage: Stage, call: Call) -> None:
        """Do what is planned for this stage of a request, apart from the answer."""
        if stage == "before":
            self.arrived.set()
            await asyncio.sleep(self.delay)
        hook = self.before if stage == "before" else self.after
        if hook is not None:
            await self._run(hook, call)
        if self.hang == stage:
            await self._hang()

    async def _run(self, hook: Hook, call: Call) -> None:
        if not inspect.iscoroutinefunction(hook):
            await asyncio.to_thread(hook, call)
        elif self._home in (None, asyncio.get_running_loop()):
            await hook(call)
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(hook(call), self._home))

    async def _hang(self) -> None:
        waker = asyncio.Event()
        self._wakers.append((asyncio.get_running_loop(), waker))
        if not self._released.is_set():
            await waker.wait()


class FaultPlan:
    """The faults in force. Every fault counts the requests that match it; the first one that hits acts."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force, and return it."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def take(self, call: Call) -> Fault | None:
        """The fault that hits this request, if any."""
        if not self._faults:
            return None
        with self._lock:
            hitting = [fault for fault in self._faults if fault.matches(call) and fault.hits()]
        return hitting[0] if hitting else None

    def clear(self) -> None:
        """Forget every fault, and let hanging requests go on."""
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            fault.release()

    def pending(self) -> list[Fault]:
        """The faults that have not hit anything yet: a test that leaves some tested nothing with them."""
        with self._lock:
            return [fault for fault in self._faults if fault.seen < fault.nth]
