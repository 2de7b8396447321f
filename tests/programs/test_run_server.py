"""How the servers of the programs are run."""

import gc
from collections.abc import Iterator

import pytest

from workqueue.programs.ending import run_server


@pytest.fixture(autouse=True)
def _nothing_frozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_a_server_has_what_was_imported_left_out_of_garbage_collections() -> None:
    frozen = []

    async def serve() -> None:
        frozen.append(gc.get_freeze_count())

    run_server(serve())

    assert frozen[0] > 1000
