"""Sending: what a dispatcher calls for each request.

The order of the steps makes a crash between any two of them harmless. First the target takes the request, then its
outcome is kept, last its key completes. After a crash behind the first step the request is sent again, with the same
`Idempotency-Key`; behind the second it is not, because its outcome is looked up before.

A try is a call that was made. A request that had no turn is put off and has spent none: its tries so far go into its
meta, because a delay without a try sets the attempts of a key back to 0.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from datetime import timedelta

from dispatcher.outage import TargetUnavailableError
from dispatcher.relay.answer import Answer, check
from dispatcher.relay.lanes import Lanes, PutOffError
from dispatcher.relay.metrics import CallResult, RelayMetrics
from dispatcher.relay.outcomes import Outcome, Outcomes
from dispatcher.relay.request import RelayedRequest
from dispatcher.relay.sender import Sender
from dispatcher.relay.settings import IDEMPOTENCY, RelaySettings, retry_delay
from workqueue.attempt import Attempt
from workqueue.backoff import Backoff
from workqueue.clock import duration_us, from_us
from workqueue.errors import InfrastructureError, NonRetriableError, StoreError, WorkQueueError
from workqueue.fallbacks import FullQueue
from workqueue.options import Options
from workqueue.outcomes import RequeueAfter
from workqueue.routing.key_limits import NO_LIMITS, Limits

__all__ = ["TRIES", "Delivery", "backoff_after", "tries_before"]

log = logging.getLogger(__name__)

TRIES = "tries"
"""The name in the meta of a request under which its tries before it was last put off are kept."""

_NOTED = "put-off"
_FIRST_PAUSE_SECONDS = 0.1
_PAUSES = 8  # 0.1 s doubling to 12.8 s: longer than a lease lasts


def tries_before(meta: Mapping[str, str]) -> int:
    """How often a request was sent before it was last put off."""
    said = meta.get(TRIES, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 10 else 0


def backoff_after(tries: int) -> Backoff:
    """How long a request waits that had `tries` tries before those that its attempts count."""
    return lambda attempts: retry_delay(tries + attempts, random.random())


_BACKOFFS = [backoff_after(tries) for tries in range(64)]  # made once: limits are cached by them


class Delivery:
    """The callback of a relay.

    Args:
        queue: where the requests are.
        outcomes: where delivered ones are noted.
        lanes: whose turn it is.
        sender: makes the calls.
        settings: how often, and what is kept.
        metrics: where to count.
    """

    def __init__(
        self,
        queue: FullQueue,
        outcomes: Outcomes,
        lanes: Lanes,
        sender: Sender,
        settings: RelaySettings,
        metrics: RelayMetrics,
    ) -> None:
        self._queue = queue
        self._outcomes = outcomes
        self._lanes = lanes
        self._sender = sender
        self._settings = settings
        self._metrics = metrics
        self._clock = queue.equipment.clock

    def limits_of_key(self, key: str, meta: Mapping[str, str]) -> Limits:
        """The tries that are left to a request, and how long it waits after the next one."""
        before = tries_before(meta)
        if not before:
            return NO_LIMITS
        left = max(self._settings.retry_limit - before, 1) if self._settings.retry_limit else None
        return Limits(max_retry=left, backoff=_BACKOFFS[min(before, len(_BACKOFFS) - 1)])

    def attempts_before(self, meta: Mapping[str, str]) -> int:
        """How often a request was sent before it was last put off (see `CountingCallback`)."""
        return tries_before(meta)

    async def __call__(self, key: str, attempt: Attempt) -> RequeueAfter | None:
        """Send the request `key` if it is its turn."""
        if attempt.payload is None:  # it was cancelled while it was called back
            return None
        request = RelayedRequest.from_payload(attempt.payload)
        if await self._is_delivered(key, request):
            log.info("request %s was delivered already", key, extra=self._extra(key))
            return None
        try:
            answer = await self._call(key, request)
        except PutOffError as later:
            return await self._put_off(key, attempt, request, later)
        await self._note(key, attempt, request, answer)
        return None

    async def _call(self, key: str, request: RelayedRequest) -> Answer:
        """What the target answered, if that is a delivery; else an error that says what becomes of the request."""
        target = request.target.name
        async with self._lanes.turn(target, key) as turn:
            try:
                answer = await self._sender.send(request, key.rpartition("/")[2])
            except TargetUnavailableError as error:
                turn.failed(error)
                self._metrics.called(target, "unreachable")
                # Not the error itself: by that the dispatcher would hold the requests to all targets.
                raise InfrastructureError(str(error)) from error
            turn.answered()
        try:
            check(answer, from_us(self._clock.wall_us()))
        except WorkQueueError as error:
            self._metrics.called(target, _result_of(error))
            raise
        self._metrics.called(target, "delivered")
        return answer

    async def _put_off(self, key: str, attempt: Attempt, request: RelayedRequest, later: PutOffError) -> RequeueAfter:
        self._metrics.put_off(request.target.name)
        log.debug("request %s is put off by %s: %s", key, later.delay, later, extra=self._extra(key))
        if attempt.attempts > 1:
            tries = tries_before(attempt.meta) + attempt.attempts - 1
            not_before = from_us(self._clock.wall_us() + duration_us(later.delay))
            await self._queue.queue(key, Options(not_before=not_before, meta={TRIES: str(tries), _NOTED: str(later)}))
        return RequeueAfter(later.delay)

    async def _is_delivered(self, key: str, request: RelayedRequest) -> bool:
        return self._kept_for(request) > timedelta(0) and await self._outcomes.read(key) is not None

    def _kept_for(self, request: RelayedRequest) -> timedelta:
        return max(IDEMPOTENCY if request.repeatable else timedelta(0), self._settings.keep_delivered)

    async def _note(self, key: str, attempt: Attempt, request: RelayedRequest, answer: Answer) -> None:
        now_us, tries = self._clock.wall_us(), tries_before(attempt.meta) + attempt.attempts
        if log.isEnabledFor(level := logging.INFO if tries > 1 else logging.DEBUG):
            message = "request %s was delivered at try %d, %.1f s after it came in: %s %s"
            age = (now_us - request.received_us) / 1e6
            log.log(level, message, key, tries, age, answer.status, request.shown, extra=self._extra(key))
        kept = self._kept_for(request)
        if not kept:
            return
        outcome = Outcome(
            target=str(request.target),
            method=request.method,
            path=request.path.partition("?")[0],
            status=answer.status,
            tries=tries,
            received_us=request.received_us,
            delivered_us=now_us,
            until_us=now_us + duration_us(kept),
            fingerprint=request.fingerprint,
        )
        await self._keep(key, attempt, outcome)

    async def _keep(self, key: str, attempt: Attempt, outcome: Outcome) -> None:
        """Keep the outcome, patiently: without it a repetition would be sent again."""
        payload = attempt.payload if self._settings.keep_delivered and attempt.payload is not None else b""
        pause = _FIRST_PAUSE_SECONDS
        for _ in range(_PAUSES):
            try:
                return await self._outcomes.keep(key, outcome, payload)
            except StoreError as error:
                log.warning("the outcome of %s is not kept yet: %s", key, error, extra=self._extra(key))
            await self._clock.sleep(pause)
            pause *= 2
        log.error("the outcome of %s, which was delivered, could not be kept", key, extra=self._extra(key))
        return None

    def _extra(self, key: str) -> dict[str, str]:
        return {"key": key, "queue": self._metrics.name}


def _result_of(error: WorkQueueError) -> CallResult:
    return "refused" if isinstance(error, NonRetriableError) else "failed"
