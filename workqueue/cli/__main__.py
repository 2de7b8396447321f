"""Lets `python -m workqueue.cli` run the program."""

from __future__ import annotations

from workqueue.cli.app import main

if __name__ == "__main__":
    main()
