"""What an operator pages through: every key of a place once, in order, whatever comes and goes in between."""

from __future__ import annotations

from collections.abc import AsyncIterator

from workqueue.conformance.case import Case, expect, refused
from workqueue.conformance.scenario import Need, scenario, scenarios
from workqueue.errors import InvalidOptionsError
from workqueue.paging import Page, PageRequest, Place, cursor_at

_PLACES = {place.value: place for place in Place}
# Text that sorts otherwise by UTF-16, by locale or by case than by its characters.
_NAMES = ["\U0001f600", "b", "\uffee", "a/b", "é", "a", "a b", "B", "aa", "x" * 1000]


async def _pages(case: Case, place: Place, limit: int, cursor: str = "") -> AsyncIterator[Page]:
    """Every page from `cursor` on; fails if one is too long, or if they do not end."""
    passed: set[str] = set()
    while True:
        page = await case.queue.page(PageRequest(place, limit, cursor))
        expect(len(page.keys) <= limit, True, f"a page of {len(page.keys)} keys is no longer than {limit}")
        yield page
        cursor = page.cursor
        if not cursor:
            return
        expect(cursor in passed, False, "the cursor of a page is one of before, so that they never end")
        passed.add(cursor)


async def _paged(case: Case, place: Place, limit: int = 3, cursor: str = "") -> list[str]:
    """The keys of every page from `cursor` on."""
    return [key.key async for page in _pages(case, place, limit, cursor) for key in page.keys]


async def _first(case: Case, place: Place, limit: int) -> Page:
    page = await case.queue.page(PageRequest(place, limit))
    expect(bool(page.cursor), True, "a further page follows")
    return page


@scenarios(_PLACES)
async def an_empty_place_is_one_empty_page(case: Case, place: Place) -> None:
    expect(await case.queue.page(PageRequest(place)), Page([]), "the first page")


@scenario(Need.CLOCK)
async def eligible_keys_are_paged_in_the_order_in_which_they_start(case: Case) -> None:
    for number in range(30):
        await case.enqueue(f"k{number * 7 % 30:02}", priority=(number % 3 - 1) * 50)
        case.advance(number % 2)
    order = await case.eligible()
    for limit in (1, 4, 10, 29, 30, 31):
        expect(await _paged(case, Place.QUEUED, limit), order, f"the keys of pages of {limit}")
    expect([owned.key for owned in (await case.lease()).started], order, "the started keys")


@scenario(Need.CLOCK)
async def keys_queued_at_the_same_time_are_paged_by_name(case: Case) -> None:
    for name in _NAMES:
        await case.enqueue(name)
    for limit in (1, 3):
        expect(await _paged(case, Place.QUEUED, limit), sorted(_NAMES), "the keys")


@scenario()
async def the_last_page_has_no_cursor(case: Case) -> None:
    for key in "abcdef":
        await case.enqueue(key)
    lengths = [len(page.keys) async for page in _pages(case, Place.QUEUED, 3)]
    expect(lengths, [3, 3], "how many keys the pages have")


@scenario(Need.CLOCK)
async def a_key_that_came_due_is_paged_where_its_queued_time_puts_it(case: Case) -> None:
    await case.enqueue("early", not_before=case.later(60))
    await case.enqueue("high", priority=5, not_before=case.later(90))
    case.advance(1)
    await case.enqueue("middle")
    case.advance(1)
    await case.enqueue("late", not_before=case.later(1))
    case.advance(60)
    expect(await _paged(case, Place.QUEUED, 1), ["early", "middle", "late"], "the eligible keys")
    case.advance(60)
    expect(await _paged(case, Place.QUEUED, 2), ["high", "early", "middle", "late"], "the eligible keys later")


@scenario(Need.SEARCH, Need.CLOCK)
async def delayed_keys_are_paged_soonest_first(case: Case) -> None:
    for number in range(12):
        await case.enqueue(f"k{number:02}", priority=number % 3, not_before=case.later(60 + number * 5 % 12))
    await case.enqueue("now")
    order = [f"k{number * 5 % 12:02}" for number in range(12)]
    for limit in (1, 5, 12):
        expect(await _paged(case, Place.DELAYED, limit), order, f"the keys of pages of {limit}")


@scenario(Need.SEARCH, Need.CLOCK)
async def keys_delayed_to_one_moment_are_each_on_one_page(case: Case) -> None:
    moment = case.later(60)
    for name in _NAMES:
        await case.enqueue(name, not_before=moment)
    for limit in (1, 4):
        expect(sorted(await _paged(case, Place.DELAYED, limit)), sorted(_NAMES), "the keys")


@scenario(Need.CLOCK)
async def dead_letters_are_paged_from_the_last_one_on(case: Case) -> None:
    for number in range(7):
        await case.failed(f"k{number * 5 % 7}", f"error {number}")
        case.advance(1)
    order = [f"k{number * 5 % 7}" for number in reversed(range(7))]
    for limit in (1, 3, 7):
        expect(await _paged(case, Place.DEAD_LETTERED, limit), order, f"the keys of pages of {limit}")


@scenario(Need.CLOCK)
async def dead_letters_of_one_moment_are_each_on_one_page(case: Case) -> None:
    for name in _NAMES:
        await case.failed(name)
    for limit in (1, 4):
        expect(sorted(await _paged(case, Place.DEAD_LETTERED, limit)), sorted(_NAMES), "the keys")


@scenario(Need.CLOCK)
async def keys_in_progress_and_twins_are_paged_by_name(case: Case) -> None:
    for name in _NAMES:
        await case.enqueue(name)
    await case.lease()
    for name in _NAMES[::2]:
        await case.enqueue(name)
    for limit in (1, 4, 10):
        expect(await _paged(case, Place.IN_PROGRESS, limit), sorted(_NAMES), "the keys in progress")
        expect(await _paged(case, Place.TWINS, limit), sorted(_NAMES[::2]), "the twins")
    expect(await _paged(case, Place.QUEUED), [], "the eligible keys")


@scenario(Need.CLOCK)
async def keys_that_go_between_two_pages_make_no_other_key_be_skipped(case: Case) -> None:
    for number in range(12):
        await case.enqueue(f"k{number:02}")
        case.advance(1)
    page = await _first(case, Place.QUEUED, 4)
    expect([owned.key for owned in (await case.lease(limit=2)).started], ["k00", "k01"], "the started keys")
    for key in ("k03", "k04"):  # the last one of the page, and the first one behind it
        expect(await (await case.listed(key)).drop(), True, "drop()")
    rest = await _paged(case, Place.QUEUED, 3, page.cursor)
    expect(rest, [f"k{number:02}" for number in range(5, 12)], "the keys of the other pages")


@scenario(Need.CLOCK)
async def keys_that_come_between_two_pages_make_no_other_key_be_listed_twice(case: Case) -> None:
    for number in range(6):
        await case.enqueue(f"k{number}")
        case.advance(1)
    page = await _first(case, Place.QUEUED, 3)
    await case.enqueue("before", priority=1)
    await case.enqueue("after")
    expect(await _paged(case, Place.QUEUED, 2, page.cursor), ["k3", "k4", "k5", "after"], "the keys of the other pages")


@scenario(Need.CLOCK)
async def a_renewed_lease_makes_no_key_be_listed_twice(case: Case) -> None:
    for key in "abcde":
        await case.enqueue(key)
    await case.lease()
    page = await _first(case, Place.IN_PROGRESS, 2)
    case.advance(int(case.target.lease.total_seconds()) // 2 + 1)
    expect(await _paged(case, Place.IN_PROGRESS, 2, page.cursor), ["c", "d", "e"], "the keys of the other pages")


@scenario(Need.CLOCK)
async def a_letter_that_fails_again_after_a_redrive_is_not_listed_twice(case: Case) -> None:
    for key in "abcd":
        await case.failed(key)
        case.advance(1)
    page = await _first(case, Place.DEAD_LETTERED, 2)
    for letter in (page.keys[1], await case.dead_letter("b")):
        expect(await letter.requeue(), True, "requeue()")  # type: ignore[union-attr]
        expect(await (await case.start(letter.key)).dead_letter("again"), True, "dead_letter()")
        case.advance(1)
    expect(await _paged(case, Place.DEAD_LETTERED, 1, page.cursor), ["a"], "the keys of the other pages")


@scenario(Need.SEARCH, Need.CLOCK)
async def delayed_keys_that_come_and_go_make_no_other_be_skipped(case: Case) -> None:
    for number in range(6):
        await case.enqueue(f"k{number}", not_before=case.later(60 + 10 * number))
    page = await _first(case, Place.DELAYED, 3)
    await case.enqueue("sooner", not_before=case.later(5))
    await case.enqueue("later", not_before=case.later(300))
    for key in page.keys[1:]:
        expect(await key.drop(), True, "drop()")  # type: ignore[union-attr]
    expect(await _paged(case, Place.DELAYED, 2, page.cursor), ["k3", "k4", "k5", "later"], "the other keys")


@scenario(Need.CLOCK)
async def a_key_on_a_page_can_be_acted_on(case: Case) -> None:
    await case.failed("dead", "boom", payload=b"p")
    await case.enqueue("running")
    await case.start("running")
    await case.enqueue("queued", payload=b"q", meta={"m": "1"}, priority=3)
    [queued], [running], [letter] = [
        (await case.queue.page(PageRequest(place))).keys
        for place in (Place.QUEUED, Place.IN_PROGRESS, Place.DEAD_LETTERED)
    ]
    expect((queued.payload, dict(queued.meta), queued.priority), (b"q", {"m": "1"}, 3), "what is queued")  # type: ignore[union-attr]
    expect((letter.error, letter.payload), ("boom", b"p"), "the dead letter")  # type: ignore[union-attr]
    expect(await queued.drop(), True, "drop()")  # type: ignore[union-attr]
    expect(await running.requeue(), True, "requeue() of what is in progress")  # type: ignore[union-attr]
    expect(await letter.requeue(), True, "requeue() of the dead letter")  # type: ignore[union-attr]
    expect(sorted(await case.eligible()), ["dead", "running"], "the eligible keys")


@scenarios(_PLACES)
async def a_cursor_of_nonsense_is_refused(case: Case, place: Place) -> None:
    await case.enqueue("a")
    foreign = [cursor_at(place), cursor_at(place, "a", 1, "b", 2), cursor_at(place, 1e9), cursor_at(place, 2**70)]
    for cursor in ("x", "é", "!!!", "A" * 100_000, *foreign):
        await refused(InvalidOptionsError, case.queue.page(PageRequest(place, 10, cursor)))


@scenario(Need.CLOCK)
async def a_cursor_of_another_place_is_refused(case: Case) -> None:
    for key in "abc":
        await case.enqueue(key)
    await case.lease()
    for key in "abc":
        await case.enqueue(key)
    cursor = (await _first(case, Place.IN_PROGRESS, 1)).cursor
    for place in (Place.QUEUED, Place.TWINS, Place.DELAYED, Place.DEAD_LETTERED, Place.UNREADABLE):
        await refused(InvalidOptionsError, case.queue.page(PageRequest(place, 10, cursor)))


@scenario(Need.CLOCK)
async def a_cursor_is_good_for_any_handle_and_any_limit(case: Case) -> None:
    for key in "abcdef":
        await case.enqueue(key)
    cursor = (await _first(case, Place.QUEUED, 2)).cursor
    page = await (await case.peer()).page(PageRequest(Place.QUEUED, 1000, cursor))
    expect([key.key for key in page.keys], ["c", "d", "e", "f"], "the keys")
    expect(cursor.isascii() and not set(cursor) & set("%&?/+= "), True, "the cursor can stand in a URL as it is")
