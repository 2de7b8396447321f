"""What a Redis error means for the caller: one clear line, typed by what happens next."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Iterator

from redis import exceptions as redis_errors

from workqueue.backends.redis.scripts import LAYOUT
from workqueue.errors import StoreError, StoreUnavailableError, StoreUnusableError

__all__ = ["CONNECTION_ERRORS", "asks_for_script", "is_passing", "typed_error"]

CONNECTION_ERRORS = (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError, asyncio.TimeoutError)
"""What a broken, refused or silent connection raises; whether the request was carried out is then unknown."""

# The node does not serve this slot, or does not take writes, at the moment. Another one does, or this one will again;
# nothing of the request was carried out.
_PASSING = {"READONLY", "ASK", "MOVED", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "LOADING", "BUSY"}

_UNAVAILABLE = {
    "LOADING": "is still loading its data; it answers once that is done",
    "READONLY": "is a read-only replica; point the URL at the master, or use redis+sentinel://",
    "MOVED": "does not serve this queue's slot any more",
    "ASK": "is giving this queue's slot to another node",
    "TRYAGAIN": "is giving this queue's slot to another node",
    "MASTERDOWN": "is a replica that has lost its master",
    "UNBLOCKED": "was made a replica while it waited for its own",
    "CLUSTERDOWN": "belongs to a cluster that is down",
    "OOM": "is out of memory (maxmemory): nothing was stored; drain keys or give it more",
    "BUSY": "is busy with somebody's slow script",
    "NOREPLICAS": "has fewer replicas than its min-replicas-to-write; nothing was stored",
    "MISCONF": "cannot persist to its disk and refuses writes; its log says why",
}

# redis-py before 7.2 cuts the code off where it has a class for it.
_CODES = {
    redis_errors.BusyLoadingError: "LOADING",
    redis_errors.OutOfMemoryError: "OOM",
    redis_errors.ReadOnlyError: "READONLY",
}

# Redis 6 wraps what a command in a script answers: "ERR Error running script (…): @user_script:45: -OOM command …"
_INNER_CODE = re.compile(r"@user_script: ?\d+: -([A-Z]+) ")


def is_passing(error: Exception) -> bool:
    """Whether the request should be made again, after another look at which node to ask."""
    return _code(error) in _PASSING


def asks_for_script(error: Exception) -> bool:
    """Whether the server has lost its scripts (it was restarted, or they were flushed)."""
    return isinstance(error, redis_errors.NoScriptError)


def typed_error(error: Exception, where: str, refused: str = "refused a script of this library") -> StoreError:
    """The error to raise for `error` from the Redis at `where`; `refused` is what a refusal of no known kind means."""
    if isinstance(error, StoreError):
        return error
    unusable = _unusable(error)
    if unusable:
        return StoreUnusableError(f"Redis at {where} {unusable}")
    says = _UNAVAILABLE.get(_code(error))
    if says:
        return StoreUnavailableError(f"Redis at {where} {says}")
    if isinstance(error, redis_errors.ResponseError):
        return StoreUnusableError(f"Redis at {where} {refused}: {error}")
    return StoreUnavailableError(f"Redis at {where} does not answer: {_reason(error)}")


def _unusable(error: Exception) -> str:
    """What an operator has to change, or ''."""
    certificate = next((e for e in _chain(error) if isinstance(e, ssl.SSLCertVerificationError)), None)
    if certificate is not None:
        return f"has a certificate that is not trusted ({certificate.verify_message}); tls_ca names the CA to trust"
    if any(isinstance(e, ssl.SSLError) for e in _chain(error)):
        return f"does not speak TLS as asked: {error}"
    if isinstance(error, redis_errors.AuthenticationError):
        return "refused the user or password of the URL"
    if isinstance(error, redis_errors.NoPermissionError):
        return f"does not permit this user what a queue needs (docs/backends.md lists it): {error}"
    if _code(error) == "WRONGTYPE":
        return "has something else where this queue keeps its keys: delete it, or give the queue another name (?name=)"
    if _code(error) == "WQLAYOUT":
        return f"holds a queue of a newer release (layout {str(error).split()[-1]}, known: {LAYOUT}); upgrade this one"
    return ""


def _reason(error: Exception) -> str:
    """Why there is no answer, in the system's words where it has any."""
    if isinstance(error, redis_errors.TimeoutError | TimeoutError):
        return "not in time"
    number = next((e.errno for e in _chain(error) if isinstance(e, OSError) and e.errno), 0)
    return os.strerror(number).lower() if number > 0 else str(error) or type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _code(error: Exception) -> str:
    """The first word of an error reply, which is its code; redis-py keeps it apart only for those it knows."""
    if not isinstance(error, redis_errors.ResponseError | redis_errors.BusyLoadingError):
        return ""
    inner = _INNER_CODE.search(str(error))
    if inner:
        return inner[1]
    known = next((code for kind, code in _CODES.items() if isinstance(error, kind)), "")
    return known or getattr(error, "status_code", None) or str(error).partition(" ")[0]
