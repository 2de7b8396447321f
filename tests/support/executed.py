"""A program that a test writes: `python -m tests.support.executed CODE` is `python -c CODE`, for what runs modules."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    exec(sys.argv[1])
