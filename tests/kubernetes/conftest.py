"""The cluster of the Kubernetes room: one for all its tests, in the namespaces that `make test-kubernetes` makes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.kubernetes.cluster_of_tests import Cluster
from tests.kubernetes.node.images import IMAGES, PACKAGES, REPOSITORY, image_of_code

NEXT_LAYOUT = 2


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.started(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own. Its Pods end with it: two cores are few for those of all tests."""
    made = cluster.new_namespace()
    yield made
    cluster.call("DELETE", f"/api/v1/namespaces/{made}")


@pytest.fixture(scope="session")
def next_release(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tag of an image with the release after this one: this code, with the next number of each layout."""
    folder = tmp_path_factory.mktemp("next")
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("redis/scripts.py", "redis/lua/parts/prelude.lua", "sqlite/schema.py"):
        source = folder / "workqueue/backends" / name
        before = source.read_text(encoding="utf-8")
        after = before.replace("LAYOUT = 1\n", f"LAYOUT = {NEXT_LAYOUT}\n", 1)
        after = after.replace("READABLE = (1,)", f"READABLE = (1, {NEXT_LAYOUT})")
        assert after != before
        source.write_text(after, encoding="utf-8")
    IMAGES["workqueue-dispatcher:next"] = image_of_code(folder)
    return "next"
