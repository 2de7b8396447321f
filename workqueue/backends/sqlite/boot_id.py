"""Which boot of the machine this is: a lease of another boot is nobody's.

Leases are judged by a clock that starts over with the machine, so every process must know one boot from another, and
all of them must agree. No other source is as sure, hence there is no silent fallback: a guess that differs from another
process's would take live leases from it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import UUID

from workqueue.errors import StoreUnusableError

__all__ = ["boot_id", "boot_id_of"]

_LINUX = Path("/proc/sys/kernel/random/boot_id")
_MACOS = ("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid")


def boot_id() -> int:
    """What this boot of the machine differs in from every other.

    Raises:
        StoreUnusableError: the kernel does not say; the message says how to name the boot instead.
    """
    try:
        return boot_id_of(_asked())
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise StoreUnusableError(
            f"the id of this boot cannot be read ({error}), so leases of before a reboot would pass for live ones; let"
            " this process see /proc/sys (systemd: ProcSubset=all), or name the boot in the queue's URL, for all"
            " processes alike: boot_id=%b in a systemd unit"
        ) from error


def boot_id_of(text: str) -> int:
    """The id in `text`, a UUID that the kernel made. Raises ValueError."""
    try:
        found = UUID(text.strip()).int
    except ValueError:
        found = 0
    if not found:
        raise ValueError(f"it takes the UUID of a boot, not {text.strip()!r}")
    return found >> 65  # 63 of its bits: they fit an INTEGER, and an index of it stays small


def _asked() -> str:
    if sys.platform == "darwin":
        return subprocess.run(_MACOS, capture_output=True, check=True, text=True).stdout
    return _LINUX.read_text(encoding="ascii")
