"""Which keys an object stands for, and that a change concerns the keys of before as well as those of after."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.kubernetes.server import KubernetesServer
from tests.support.kubernetes import watching
from workqueue.errors import InvalidSettingError
from workqueue.sources.kubernetes import KeysOf, Watch, annotation, itself, label, owner, prefixed

OWNERS = [
    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "controller": True, "uid": "1"},
    {"apiVersion": "example.com/v1", "kind": "Site", "name": "home", "uid": "2"},
    {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "3"},
]
POD = {
    "metadata": {
        "name": "p",
        "namespace": "prod",
        "ownerReferences": OWNERS,
        "labels": {"site": "home"},
        "annotations": {"sites": "home, test/other,"},
    }
}


@pytest.mark.parametrize(
    ("keys_of", "keys"),
    [
        (itself, ["prod/p"]),
        (owner("Site"), ["prod/home"]),
        (owner("Site", group="example.com"), ["prod/home"]),
        (owner("Site", group="other.com"), []),
        (owner("ReplicaSet", group="apps"), ["prod/web"]),
        (owner("Node", group="", namespaced=False), ["n1"]),
        (owner("Deployment"), []),
        (label("site"), ["prod/home"]),
        (label("site", namespaced=False), ["home"]),
        (label("none"), []),
        (annotation("sites"), ["prod/home", "test/other"]),
        (annotation("sites", namespaced=False), ["home", "test/other"]),
        (annotation("none"), []),
        (prefixed("pod:"), ["pod:prod/p"]),
        (prefixed("site:", owner("Site")), ["site:prod/home"]),
    ],
)
def test_a_mapping_names_the_keys_of_an_object(keys_of: KeysOf, keys: list[str]) -> None:
    assert list(keys_of(POD)) == keys


@pytest.mark.parametrize(
    "keys_of", [owner("Site"), label("site"), annotation("site")], ids=["owner", "label", "annotation"]
)
def test_an_object_without_any_metadata_of_that_sort_stands_for_no_key(keys_of: KeysOf) -> None:
    assert list(keys_of({"metadata": {"name": "p", "labels": None, "annotations": None}})) == []


async def test_several_kinds_fill_one_queue() -> None:
    owned = [{"apiVersion": "example.com/v1", "kind": "Site", "name": "home", "uid": "1"}]
    async with KubernetesServer() as server:
        server.create("Site", "home")
        server.create("ConfigMap", "page", ownerReferences=owned)
        server.create("ConfigMap", "other")
        watches = Watch("example.com/v1/Site"), Watch("v1/ConfigMap", keys=owner("Site"), priority=7)
        async with watching(server, *watches) as scene:
            assert await scene.listed() == {"default/home": -100}
            await scene.watching(2)

            server.touch("ConfigMap", "other")
            server.touch("ConfigMap", "page")

            assert await scene.next("default/home") == {"default/home": 7}


async def test_an_object_that_moves_from_one_key_to_another_concerns_both() -> None:
    async with KubernetesServer() as server:
        server.create("Pod", "p", labels={"site": "old"})
        async with watching(server, Watch("v1/Pod", keys=label("site"))) as scene:
            await scene.listed()
            await scene.watching()

            server.touch("Pod", "p", site="new")
            assert set(await scene.next("default/old", "default/new")) == {"default/old", "default/new"}

            server.delete("Pod", "p")
            assert set(await scene.next("default/new")) == {"default/new"}


@pytest.mark.parametrize(
    "bad",
    [lambda pod: pod["spec"]["absent"], lambda pod: ["", "default/p"], lambda pod: ["\n"]],
    ids=["raises", "empty", "control"],
)
async def test_a_mapping_that_errs_costs_its_object_and_is_logged(bad: Any, caplog: pytest.LogCaptureFixture) -> None:
    def keys_of(pod: Any) -> list[str]:
        return bad(pod) if pod["metadata"]["name"] == "p" else list(itself(pod))

    async with KubernetesServer() as server:
        server.create("Pod", "p")
        server.create("Pod", "q")
        async with watching(server, Watch("v1/Pod", keys=keys_of)) as scene:
            assert set(await scene.listed()) == {"default/q"}
            assert "default/p" in caplog.text


@pytest.mark.parametrize("kind", ["Pod", "v1/pods", "apps/Deployment", "a/b/v1/Pod", "", "v1/"])
def test_what_is_no_kind_is_refused(kind: str) -> None:
    with pytest.raises(InvalidSettingError, match="apps/v1/Deployment"):
        Watch(kind)
