"""Stage 3: signs of life, for probes: whether the process should be restarted, and whether it should be called."""

from __future__ import annotations

from dispatcher.setup import Setup
from workqueue.clock import duration_us

__all__ = ["Health"]

_PERIODS = 3


class Health:
    """What a loop and its rounds say of themselves; `/healthz` and `/readyz` answer from it.

    Any stranger may read the answers. So they name the class of an error and not its text, which may hold an address.

    Args:
        setup: its clock judges how old a sign of life is. A loop that lives shows one each `poll_period` at the least,
            and may miss two. Its renewer has to tick, its target may be down, and its queue may have a remark.
    """

    def __init__(self, setup: Setup) -> None:
        self.draining = False
        self._clock = setup.clock
        self._patience_us = _PERIODS * duration_us(setup.settings.poll_period)
        self._renewer = setup.renewer
        self._outage = setup.outage
        self._of_the_store = setup.queue.equipment.remark
        self._iterated_us: int | None = None
        self._died_of = ""
        self._store_trouble = ""

    def iterated(self) -> None:
        """The loop has completed an iteration. Before the first one no loop is expected to live."""
        self._iterated_us = self._clock.steady_us()

    def ended(self) -> None:
        """The loop has ended as it should."""
        self._iterated_us = None

    def died(self, error: BaseException) -> None:
        """The loop has ended of `error`, and nothing will be dispatched any more."""
        self._died_of = type(error).__name__

    def store_answered(self) -> None:
        """The store did what it was asked."""
        self._store_trouble = ""

    def store_failed(self, error: BaseException) -> None:
        """The store did not."""
        self._store_trouble = f"the store does not work ({type(error).__name__}); the log says why"

    def why_dead(self) -> str:
        """Why the process should be restarted; empty = it is alive."""
        if self._died_of:
            return f"the loop has died of {self._died_of}; the log says why"
        now_us = self._clock.steady_us()
        if self._iterated_us is not None and now_us - self._iterated_us > self._patience_us:
            return f"the loop has not moved for {(now_us - self._iterated_us) / 1e6:.0f} s"
        if self._renewer is not None and self._renewer.stalled(now_us):
            return "leases are not being renewed"
        return ""

    def remark(self) -> str:
        """What who is ready should be known for; empty = nothing. It names no address: anybody may ask."""
        remarks = [self._of_the_store()]
        if self._outage.is_on():
            seconds = self._outage.seconds(self._clock.steady_us())
            remarks.append(f"the target has been down for {seconds:.0f} s: starts are held")
        return "; ".join(remark for remark in remarks if remark)

    def why_unready(self) -> str:
        """Why nothing should be sent here; empty = ready."""
        return "draining" if self.draining else self._store_trouble
