"""What a target's answer means for a request (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.posting import retry_after
from dispatcher.targets.document import HandlerFailedError
from workqueue.errors import NonRetriableError, RetryAfterError

__all__ = ["Answer", "check"]

_RETRIED = frozenset({408, 425, 429})
_LONGEST_WAIT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a target said.

    Args:
        status: of HTTP.
        text: the first 4 KiB of the body, unless the request is delivered.
        retry_after: the header; '' if there is none.
    """

    status: int
    text: str = ""
    retry_after: str = ""

    @property
    def is_delivery(self) -> bool:
        """Whether the target has taken the request."""
        return 200 <= self.status < 300


def check(answer: Answer, now: datetime) -> None:
    """Return if the request is delivered.

    | status | the request |
    |---|---|
    | 2xx | is delivered |
    | 408, 425, 429, 5xx | is tried again; `Retry-After` says when, at most a day later |
    | other 4xx | is given up at once |
    | 3xx | is tried again: redirects are not followed |

    Raises:
        NonRetriableError: it is given up.
        RetryAfterError, HandlerFailedError: it is tried again.
    """
    if answer.is_delivery:
        return
    why = f"the target answered {answer.status}{': ' if answer.text else ''}{answer.text}"
    if 400 <= answer.status < 500 and answer.status not in _RETRIED:
        raise NonRetriableError(why)
    later = retry_after(answer.retry_after, now)
    if later is not None:
        raise RetryAfterError(min(later, _LONGEST_WAIT), why)
    raise HandlerFailedError(why)
