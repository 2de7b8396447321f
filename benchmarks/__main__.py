"""Every benchmark of the core in turn: `make bench`, or `python -m benchmarks`. About five minutes on two cores.

Each is a process of its own, so that none measures the garbage of the one before.
"""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    ("benchmarks.cycle",),
    ("benchmarks.cycle", "--loop", "uvloop"),
    ("benchmarks.grpc_dispatch",),
    ("benchmarks.sqlite",),
    ("benchmarks.metrics",),
    ("benchmarks.routing",),
    ("benchmarks.size",),
)


def main() -> int:
    """Run them all; returns 1 if one of them failed."""
    failed = []
    for module, *arguments in BENCHMARKS:
        print(f"\n== {module} {' '.join(arguments)}", flush=True)
        if subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode:
            failed.append(module)
    for module in failed:
        print(f"{module} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
