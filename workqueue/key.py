"""Stage 1: what a key is, and which strings may become one."""

from __future__ import annotations

import re

from workqueue.errors import InvalidKeyError

__all__ = ["MAX_KEY_BYTES", "check_key_text", "validate_key"]

MAX_KEY_BYTES = 1000

# C0, DEL and C1 controls, and lone surrogates (which UTF-8 cannot carry).
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def validate_key(key: str) -> str:
    """Return `key` if it may be enqueued: 1 to 1000 bytes of UTF-8, no control characters, no lone surrogates.

    Only enqueues are validated. A key found in a store is processed whatever it looks like, because refusing it there
    would leave it stuck.

    Raises:
        InvalidKeyError: with the offending position or length in its message.
    """
    if not isinstance(key, str):
        raise _no_text(key)
    if key.isascii() and key.isprintable():
        size = len(key)  # the common case needs neither the search nor the encoding
    else:
        found = _FORBIDDEN.search(key)
        if found:
            raise InvalidKeyError(f"the key has the forbidden character U+{ord(found[0]):04X} at {found.start()}")
        size = len(key.encode())
    if not 1 <= size <= MAX_KEY_BYTES:
        raise InvalidKeyError(f"a key has 1 to {MAX_KEY_BYTES} bytes of UTF-8, this one has {size}")
    return key


def check_key_text(key: str) -> str:
    """Return `key` if it can be looked up: text, whatever its characters and length, since a store may hold any.

    Raises:
        InvalidKeyError: it is no text, or has lone surrogates that stand for no byte.
    """
    if not isinstance(key, str):
        raise _no_text(key)
    if not key.isascii():
        try:
            key.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            at = error.start
            raise InvalidKeyError(f"the key has the forbidden character U+{ord(key[at]):04X} at {at}") from None
    return key


def _no_text(key: object) -> InvalidKeyError:
    return InvalidKeyError(f"a key is a str, not {type(key).__name__}")
