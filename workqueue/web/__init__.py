"""Stages 1, 3, 7: HTTP: serving an ASGI app beside everything else in the process, and guarding it. Read `server` first."""
