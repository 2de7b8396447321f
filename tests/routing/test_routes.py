"""Which registered name takes a name: the table, and what is refused."""

from __future__ import annotations

import pytest

from workqueue.errors import InvalidSettingError
from workqueue.routing.errors import DuplicateRouteError
from workqueue.routing.routes import Routes


def routes(*names: str) -> Routes[str]:
    table: Routes[str] = Routes()
    for name in names:
        table.add(name, f"<{name}>")
    return table


@pytest.mark.parametrize(
    ("name", "taken_by"),
    [
        ("email", "email"),
        ("email:new", "email:new"),
        ("email:old", "email:"),
        ("email:new:today", "email:new"),
        ("email:newer", "email:"),
        ("email/old", "email"),
        ("email.old", "email"),
        ("emailx", ""),
        ("mail", ""),
        ("", ""),
        (":email", ""),
        ("a.b/c", "a.b"),
        ("a/b", ""),
    ],
)
def test_the_exact_name_wins_then_the_longest_prefix_at_a_separator_then_the_catch_all(
    name: str, taken_by: str
) -> None:
    table = routes("", "email", "email:", "email:new", "a.b")

    assert table.find(name) == f"<{taken_by}>"


@pytest.mark.parametrize("name", ["emailx", "email", "e", "", "other:new"])
def test_without_a_catch_all_what_fits_nothing_has_no_route(name: str) -> None:
    assert routes("email:").find(name) is None


def test_the_order_of_registration_does_not_matter() -> None:
    names = ["", "a", "a:", "a:b"]

    assert [routes(*names).find(f"a:b:{n}") for n in range(3)] == [routes(*reversed(names)).find("a:b:0")] * 3


@pytest.mark.parametrize("name", ["", "email", "email:"])
def test_a_name_is_registered_once(name: str) -> None:
    table = routes("", "email", "email:")

    with pytest.raises(DuplicateRouteError, match=f"'{name}' is registered already"):
        table.add(name, "again")
    assert table.find(name) == f"<{name}>"


def test_a_name_is_a_text() -> None:
    with pytest.raises(InvalidSettingError, match="not under None"):
        routes().add(None, "x")  # type: ignore[arg-type]
