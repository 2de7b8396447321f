"""The stores on which everything is tried in the browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.redis_server import shared_server
from tests.support.redis import fresh_name
from tests.support.sqlite import sqlite_url


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name = fresh_name()
    return sqlite_url(tmp_path / "wq.db", name=name) if request.param == "sqlite" else shared_server().url(name)


@pytest.fixture(params=[True, False], ids=["script", "no-script"])
def script(request: pytest.FixtureRequest) -> bool:
    """Whether the browser runs scripts."""
    return bool(request.param)
