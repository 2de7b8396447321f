"""The cluster of the Kubernetes room: one for all its tests, in the namespaces that `make test-kubernetes` makes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kubernetes.cluster_of_tests import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.started(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    """A namespace of the test's own."""
    return cluster.new_namespace()
