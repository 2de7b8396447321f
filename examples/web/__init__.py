"""Enqueueing from web applications: FastAPI (`orders`) and Django 5.2 (`shop`). docs/web.md shows how both are run."""
