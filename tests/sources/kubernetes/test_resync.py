"""The resync of a Kubernetes source: every key once per period, at an even pace, below everything that changed."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from tests.fakes.kubernetes.server import KubernetesServer
from tests.support.dispatching import settle_down, until
from tests.support.kubernetes import Scene, watching
from workqueue.errors import InvalidSettingError
from workqueue.sources.kubernetes import KubernetesSource, Watch, label

HOUR = timedelta(hours=1)


async def next_period(scene: Scene) -> None:
    """Let time pass until a period has begun, and its first step has enqueued what was left of the one before."""
    left = 3600 - scene.clock.wall_us() // 1_000_000 % 3600
    await minutes(scene, 1, seconds=left + 4)


async def minutes(scene: Scene, many: int, *, seconds: int = 60) -> list[dict[str, int]]:
    """What is enqueued in each of the next minutes, with its priority."""
    enqueued = []
    for _ in range(many):
        for _ in range(seconds):
            scene.clock.advance(timedelta(seconds=1))
            await settle_down(20)
            await until(lambda: not scene.source.waiting)
        enqueued.append(await scene.taken())
    return enqueued


async def test_every_key_is_enqueued_once_in_a_period_without_a_herd_and_in_another_order_in_the_next() -> None:
    async with KubernetesServer() as server:
        for number in range(300):
            server.create("Pod", f"p{number}")
        async with watching(server, Watch("v1/Pod"), resync=HOUR) as scene:
            await scene.listed()
            await next_period(scene)
            periods = [await minutes(scene, 60), await minutes(scene, 60)]

        for period in periods:
            turns = Counter(key for minute in period for key in minute)
            # A turn in the step on the boundary may be taken a moment before or after this test looks.
            assert sum(abs(turns[key] - 1) for key in server.names("Pod")) <= 2
            assert max(map(len, period)) < 20, "5 a minute on average"
        first, second = ([key for minute in period for key in minute] for period in periods)
        assert first != second


async def test_a_resync_has_its_own_priority_and_a_key_of_many_objects_has_one_turn() -> None:
    async with KubernetesServer() as server:
        for number in range(20):
            server.create("Pod", f"p{number}", labels={"site": "home"})
        watch = Watch("v1/Pod", keys=label("site"))
        async with watching(server, watch, resync=HOUR, background_priority=-7) as scene:
            await scene.listed()
            await next_period(scene)
            found = await minutes(scene, 60)

        assert [each for each in found if each] == [{"default/home": -7}]


async def test_an_object_that_was_deleted_has_no_turn_in_the_next_period() -> None:
    async with KubernetesServer() as server:
        server.create("Pod", "a")
        server.create("Pod", "b")
        async with watching(server, Watch("v1/Pod"), resync=HOUR) as scene:
            await scene.listed()
            await scene.watching()
            server.delete("Pod", "b")
            await scene.next("default/b")
            await next_period(scene)

            assert [key for minute in await minutes(scene, 60) for key in minute] == ["default/a"]


def test_a_period_of_less_than_a_second_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="resync"):
        KubernetesSource(None, [Watch("v1/Pod")], None, resync=timedelta(0))  # type: ignore[arg-type]
