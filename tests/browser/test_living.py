"""A page that stays open: it follows the queue, rests while nobody sees it, and outlives its store and its console."""

from __future__ import annotations

from tests.browser.chromium import at_console
from tests.fakes.redis_server import RedisServer
from tests.support.redis import fresh_name
from workqueue import Options
from workqueue.optional import LeaseRequest


async def test_the_overview_follows_the_queue_without_being_loaded_again(url: str) -> None:
    async with at_console(url) as at:
        await at.go()
        await at.page.evaluate("window.same = true")
        await at.queue.queue_many([(f"key-{number}", Options()) for number in range(321)])
        await at.page.locator("#state").get_by_text("321", exact=True).wait_for()

        assert await at.page.evaluate("window.same") is True
    assert at.complaints == []


async def test_what_somebody_types_meanwhile_stays(url: str) -> None:
    async with at_console(url) as at:
        await at.go()
        await at.page.get_by_label("concurrency").fill("7")
        await at.page.get_by_label("key", exact=True).fill("half a ke")
        await at.queue.queue("a")
        await at.page.locator("#state").get_by_text("1", exact=True).first.wait_for()

        assert await at.page.get_by_label("concurrency").input_value() == "7"
        assert await at.page.get_by_label("key", exact=True).input_value() == "half a ke"


async def test_the_page_of_a_key_follows_it_from_place_to_place(url: str) -> None:
    async with at_console(url) as at:
        await at.queue.queue("a")
        await at.go("/key?key=a")
        await at.page.get_by_role("heading", name="Eligible").wait_for()
        [owned] = (await at.queue.lease(LeaseRequest(1, 1))).started
        await at.page.get_by_role("heading", name="In progress").wait_for()
        await owned.dead_letter("HTTP 503")
        await at.page.get_by_role("heading", name="Dead-lettered").wait_for()
        await at.reads("HTTP 503")
    assert at.complaints == []


async def test_a_page_that_nobody_sees_asks_for_nothing(url: str) -> None:
    async with at_console(url) as at:
        await at.page.clock.install()
        await at.go()
        asked: list[str] = []
        at.page.on("request", lambda request: asked.append(request.url))
        await at.page.clock.run_for(10_000)
        seen = len(asked)
        await at.page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
        await at.page.clock.run_for(1_000)
        asked.clear()
        await at.page.clock.run_for(60_000)

    assert seen > 0
    assert asked == []


async def test_while_the_store_is_down_an_open_page_says_so_and_goes_on_by_itself() -> None:
    with RedisServer() as server:
        async with at_console(server.url(fresh_name())) as at:
            await at.queue.queue("a")
            await at.go()
            await at.page.evaluate("window.same = true")
            server.kill()
            await at.reads("The store does not answer")
            server.start()
            await at.page.locator("#lost").wait_for(state="hidden")
            await at.queue.queue_many([(key, Options()) for key in "bcd"])  # it forgot the first: it has no disk
            await at.page.locator("#state").get_by_text("3", exact=True).first.wait_for()

            assert await at.page.evaluate("window.same") is True


async def test_a_page_that_is_opened_while_the_store_is_down_shows_the_queue_once_it_is_up() -> None:
    with RedisServer() as server:
        async with at_console(server.url(fresh_name())) as at:
            server.kill()
            await at.go()
            await at.page.get_by_role("heading", name="The store does not answer").wait_for()
            server.start()
            await at.page.get_by_role("button", name="Pause starts").wait_for()


async def test_a_page_whose_console_has_gone_says_so(url: str) -> None:
    async with at_console(url) as at:
        await at.go()
        await at.page.get_by_text("Known since").wait_for()
        at.server.kill()
        await at.reads("The console does not answer")
