"""Lets `python -m workqueue.cli` run the program."""

from __future__ import annotations

from workqueue.cli.start import start

if __name__ == "__main__":
    start()
