"""Hooks: in which order they are called, what they may decide, and what they cannot do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from workqueue.routing import Context, Hooks, Router, Source, fields, has_fields
from workqueue.routing.errors import DecodeError, RoutingError
from workqueue.routing.messages.hooks import NO_HOOKS
from workqueue.testing import FakeClock

SECOND = timedelta(seconds=1)
GOOD, FAILING = b'{"type": "good", "payload": {}}', b'{"type": "failing", "payload": {}}'
REFUSED = {
    "on_no_source": b"no JSON",
    "on_parse_error": b'{"type": 7, "payload": {}}',
    "on_no_handler": b'{"type": "other", "payload": {}}',
    "on_decode_error": b'{"type": "good", "payload": []}',
    "on_validation_error": b'{"type": "picky", "payload": {}}',
}
WITH_SOURCE = [step for step in REFUSED if step != "on_no_source"]


def skip(context: Context, error: RoutingError) -> None:
    """Decide that a message need not be handled."""


SKIP: Any = skip


@dataclass
class Picky:
    def validate(self) -> None:
        raise ValueError("never good enough")


class Steps:
    """Hooks that note when they are called and with what."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def noting(self, name: str) -> Any:
        return lambda context, *told: self.seen.append((name, context.source, context.key, *told))

    def deciding(self, name: str, error: Exception | None = None) -> Any:
        def hook(context: Context, refused: RoutingError) -> None:
            self.seen.append((name, refused))
            if error is not None:
                raise error

        return hook


def routed(hooks: Hooks | list[Hooks] = NO_HOOKS, own: Hooks = NO_HOOKS, clock: FakeClock | None = None) -> Router:
    """A router with one source and three handlers; each call takes a second of a fake clock."""
    router = Router(
        Source("envelope", has_fields("type"), fields("type", "payload"), hooks=own), hooks=hooks, clock=clock
    )

    @router.proc("good")
    async def good(payload: dict[str, Any], context: Context) -> None:
        if clock is not None:
            clock.advance(SECOND)

    @router.func("failing")
    async def failing(payload: dict[str, Any], context: Context) -> None:
        await good(payload, context)
        raise ValueError(context.values.get("tenant", "no tenant"))

    @router.proc("picky")
    async def picky(payload: Picky) -> None: ...

    return router


async def test_hooks_are_called_in_the_order_of_the_steps_the_routers_first() -> None:
    steps, clock = Steps(), FakeClock()
    every = ("on_parse", "on_dispatch", "on_success", "on_failure")
    first = Hooks(**{step: steps.noting(f"first {step}") for step in every})
    second = Hooks(**{step: steps.noting(f"second {step}") for step in every})
    own = Hooks(**{step: steps.noting(f"own {step}") for step in every})

    await routed([first, second], own, clock).process(GOOD)

    told = {"on_parse": (), "on_dispatch": (), "on_success": (SECOND,)}
    expected = [
        (f"{whose} {step}", "envelope", "good", *told[step]) for step in told for whose in ("first", "second", "own")
    ]
    assert steps.seen == expected


async def test_a_failure_is_told_with_its_error_and_how_long_it_took() -> None:
    steps = Steps()
    hooks = Hooks(on_failure=steps.noting("failed"), on_success=steps.noting("succeeded"))

    with pytest.raises(ValueError, match="no tenant") as raised:
        await routed(hooks, clock=FakeClock()).process(FAILING)

    assert [seen[:3] for seen in steps.seen] == [("failed", "envelope", "failing")]
    assert steps.seen[0][3] is raised.value


async def test_what_on_parse_returns_is_the_context_from_then_on() -> None:
    async def with_tenant(context: Context) -> Context:
        return context.having(tenant=f"{context.values.get('tenant', '')}+{context.key}")

    with pytest.raises(ValueError, match=r"^\+failing\+failing$"):
        await routed(Hooks(on_parse=with_tenant), Hooks(on_parse=with_tenant)).process(FAILING)


async def test_what_on_parse_raises_fails_the_message() -> None:
    def refuse(context: Context) -> None:
        raise PermissionError("not on Sundays")

    with pytest.raises(PermissionError):
        await routed(Hooks(on_parse=refuse)).process(GOOD)


@pytest.mark.parametrize("step", ["on_dispatch", "on_success"])
async def test_a_hook_that_only_watches_cannot_fail_a_message(step: str, caplog: pytest.LogCaptureFixture) -> None:
    def broken(context: Context, *told: object) -> None:
        raise RuntimeError("the metrics are down")

    assert (await routed(Hooks(**{step: broken})).process(GOOD)).skipped is None
    assert f"the hook {step} raised" in caplog.text


async def test_a_hook_cannot_hide_what_the_handler_raised() -> None:
    def broken(context: Context, *told: object) -> None:
        raise RuntimeError("the metrics are down")

    with pytest.raises(ValueError, match="no tenant"):
        await routed(Hooks(on_failure=broken)).process(FAILING)


@pytest.mark.parametrize("step", REFUSED)
async def test_without_a_hook_that_decides_the_message_fails(step: str) -> None:
    others = Hooks(**{other: SKIP for other in REFUSED if other != step})

    with pytest.raises(RoutingError) as raised:
        await routed(others).process(REFUSED[step])
    assert raised.value.hook == step


@pytest.mark.parametrize("step", REFUSED)
async def test_a_router_hook_that_returns_skips_the_message(step: str) -> None:
    steps = Steps()

    processed = await routed(Hooks(**{step: steps.deciding("router")})).process(REFUSED[step])

    assert steps.seen == [("router", processed.skipped)]


@pytest.mark.parametrize("step", WITH_SOURCE)
async def test_a_sources_own_hook_alone_may_skip_the_message(step: str) -> None:
    steps = Steps()

    processed = await routed(own=Hooks(**{step: steps.deciding("own")})).process(REFUSED[step])

    assert steps.seen == [("own", processed.skipped)]


@pytest.mark.parametrize("whose", ["router", "own"])
@pytest.mark.parametrize("step", WITH_SOURCE)
async def test_if_one_of_several_hooks_raises_the_message_fails_with_that(step: str, whose: str) -> None:
    steps, decided = Steps(), PermissionError("kept for an operator")
    hooks = Hooks(**{step: steps.deciding("router", decided if whose == "router" else None)})
    own = Hooks(**{step: steps.deciding("own", decided if whose == "own" else None)})

    with pytest.raises(PermissionError):
        await routed(hooks, own).process(REFUSED[step])
    assert [name for name, _ in steps.seen] == (["router"] if whose == "router" else ["router", "own"])


async def test_a_hook_that_decides_may_be_a_coroutine_function_and_sees_the_cause() -> None:
    async def reraise(context: Context, error: RoutingError) -> None:
        assert error.__cause__ is not None
        raise error

    with pytest.raises(DecodeError):
        await routed(Hooks(on_decode_error=reraise)).process(REFUSED["on_decode_error"])
