"""Stage 5: several callbacks behind one queue, chosen by what a key is about. Read `keys` first.

Retry policies have names here.
"""

from __future__ import annotations

from workqueue.routing.keys import KeyRouter, Middleware
from workqueue.routing.limits import Limits, with_limits
from workqueue.routing.policies import POLICIES, Decorrelated, Fixed, Linear, retry_policy

__all__ = [
    "POLICIES",
    "Decorrelated",
    "Fixed",
    "KeyRouter",
    "Limits",
    "Linear",
    "Middleware",
    "retry_policy",
    "with_limits",
]
