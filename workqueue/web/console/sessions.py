"""What a console remembers of browsers, by the random text of their cookie: in memory, bounded, and for a time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from workqueue.clock import Clock, duration_us
from workqueue.web.console.admission import Visitor

__all__ = ["COOKIE", "Kept", "Session", "Sessions", "fresh_secret"]

COOKIE = "workqueue-console"

_MOST = 1000
_T = TypeVar("_T")


def fresh_secret() -> str:
    """Text that nobody can guess."""
    return secrets.token_urlsafe(32)


class Kept(Generic[_T]):
    """Values by key, each for a time; beyond 1,000 the oldest makes way.

    Args:
        clock: says how old they are.
        lasts: for how long each is good.
    """

    def __init__(self, clock: Clock, lasts: timedelta) -> None:
        self._clock = clock
        self._lasts_us = duration_us(lasts)
        self._kept: OrderedDict[str, tuple[int, _T]] = OrderedDict()

    def put(self, key: str, value: _T) -> None:
        """Keep `value`, instead of what was kept before."""
        self._kept.pop(key, None)
        self._kept[key] = (self._clock.steady_us() + self._lasts_us, value)
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)

    def get(self, key: str) -> _T | None:
        """What is kept, if it is still good."""
        until_us, value = self._kept.get(key, (0, None))
        return value if until_us > self._clock.steady_us() else None

    def take(self, key: str) -> _T | None:
        """What is kept, if it is still good; it is not kept any longer."""
        value = self.get(key)
        self._kept.pop(key, None)
        return value


@dataclass(frozen=True, slots=True)
class Session:
    """A login: by a bearer `token`, which is checked at every request, or as a `visitor` whom an issuer named."""

    token: str = ""
    visitor: Visitor | None = None


class Sessions:
    """The logins, what is to be shown once, and the tokens of forms; each bound to the cookie of one browser."""

    def __init__(self, clock: Clock, lasts: timedelta) -> None:
        self.logins: Kept[Session] = Kept(clock, lasts)
        self.notices: Kept[str] = Kept(clock, timedelta(minutes=5))
        self._secret = secrets.token_bytes(32)

    def form_token(self, cookie: str) -> str:
        """What each form of this browser carries: nobody without its cookie can make it up."""
        return hmac.new(self._secret, cookie.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, cookie: str, shown: str) -> bool:
        """Whether a form carried the token of this browser."""
        return bool(cookie) and hmac.compare_digest(self.form_token(cookie).encode(), shown.encode(errors="replace"))
