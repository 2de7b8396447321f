"""A message on its way through a router: to its handler, and back to whoever waits for an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from workqueue import NonRetriableError, QueueKey, QueueKeys, RequeueAfter
from workqueue.routing import (
    Context,
    Hooks,
    Message,
    Parsed,
    Processed,
    Router,
    Source,
    field_equals,
    fields,
    has_fields,
    inspect_cloud_event,
)
from workqueue.routing.errors import (
    DecodeError,
    DuplicateRouteError,
    InvalidPayloadError,
    NoHandlerError,
    NoSourceError,
    ParseError,
    RoutingError,
)
from workqueue.routing.messages.hooks import NO_HOOKS

MINUTE = timedelta(minutes=1)
ENVELOPE = Source("envelope", has_fields("type", "payload"), fields("type", "payload"))


def skip(context: Context, error: RoutingError) -> None:
    """Decide that a message need not be handled."""


SKIP: Any = skip


@dataclass
class User:
    id: int

    def validate(self) -> None:
        if self.id < 0:
            raise ValueError("id is negative")


@dataclass
class Answers:
    """A replier that keeps what it was given."""

    given: list[tuple[str, object]] = field(default_factory=list)
    broken: bool = False

    async def reply(self, result: object) -> None:
        self.given.append(("reply", result))
        if self.broken:
            raise ConnectionError("nobody listens")

    async def fail(self, error: Exception) -> None:
        self.given.append(("fail", error))
        if self.broken:
            raise ConnectionError("nobody listens")


def asking(answers: Answers, hooks: Hooks = NO_HOOKS) -> Source:
    """A source for which somebody waits."""

    def parse(message: Message, view: Mapping[str, Any]) -> Parsed:
        return Parsed(view["type"], view["payload"], answers)

    return Source("asking", has_fields("type", "payload"), parse, hooks=hooks)


def raw(type_: str = "user/created", payload: object = None, **more: object) -> bytes:
    return json.dumps({"type": type_, "payload": {"id": 1} if payload is None else payload, **more}).encode()


def users(*sources: Source, hooks: Hooks = NO_HOOKS) -> tuple[Router, list[User]]:
    """A router whose one handler notes the users that it is given."""
    router, seen = Router(*(sources or (ENVELOPE,)), hooks=hooks), []

    @router.proc("user/created")
    async def created(user: User) -> None:
        seen.append(user)

    return router, seen


async def test_a_message_reaches_the_handler_for_its_key_decoded_into_what_it_takes() -> None:
    router, seen = users()

    processed = await router.process(raw(payload={"id": 42}))

    assert seen == [User(42)]
    assert processed == Processed("envelope", "user/created", {})


async def test_a_func_returns_what_a_proc_does_not() -> None:
    router = Router(ENVELOPE)

    @router.func("lookup-user")
    async def lookup(user: User) -> dict[str, str]:
        return {"name": f"user {user.id}"}

    @router.proc("touch-user")
    async def touch(user: User) -> dict[str, str]:
        return {"name": "nobody sees it"}

    assert (await router.process(raw("lookup-user"))).result == {"name": "user 1"}
    assert (await router.process(raw("touch-user"))).result == {}


async def test_keys_are_routed_as_types_are() -> None:
    router, seen = Router(ENVELOPE), []
    for name in ("", "user", "user/created"):

        async def handler(payload: dict[str, Any], context: Context, name: str = name) -> None:
            seen.append((name, context.key))

        router.proc(name)(handler)

    for key in ("user/created", "user/deleted", "users"):
        await router.process(raw(key))

    assert seen == [("user/created", "user/created"), ("user", "user/deleted"), ("", "users")]


async def test_the_source_registered_first_wins_in_every_group_and_after_any_traffic() -> None:
    router = Router(named("narrow", field_equals("kind", "a")), named("wide", has_fields("type")))
    router.group(inspect_cloud_event, named("events", has_fields("specversion")))
    router.add(named("late", has_fields("type")))
    router.proc("")(ignore)
    event = {"specversion": "1.0", "id": "1", "source": "/s"}
    for _ in range(50):
        await router.process(raw(kind="a"))

    assert (await router.process(raw(kind="b"))).source == "wide"
    assert (await router.process(raw(kind="a", **event))).source == "narrow"
    assert (
        await router.process(json.dumps({"event": 1, "type": "t", "payload": 1, **event}).encode())
    ).source == "wide"


async def ignore(payload: object) -> None: ...


def named(name: str, when: Any, inspector: Any = None) -> Source:
    source = Source(name, when, fields("type", "payload"))
    return source if inspector is None else Source(name, when, source.parse, inspector)


async def test_a_view_is_made_at_most_once_for_each_inspector_however_many_sources_it_has() -> None:
    made: list[str] = []

    def counting(name: str) -> Any:
        def inspector(message: Message) -> Mapping[str, Any]:
            made.append(name)
            return {"type": "t", "payload": 1}

        return inspector

    one, other = counting("one"), counting("other")
    nobody = field_equals("type", "x")
    router = Router(
        named("a", nobody, one), named("b", nobody, other), named("c", nobody, one), named("d", nobody, one)
    )

    with pytest.raises(NoSourceError):
        await router.process(b"whatever")
    assert sorted(made) == ["one", "other"]


async def test_an_inspector_behind_the_winner_is_not_asked() -> None:
    def never(message: Message) -> Mapping[str, Any]:
        raise AssertionError

    router, seen = users(ENVELOPE, named("other", has_fields("type"), never))

    await router.process(raw())

    assert seen == [User(1)]


async def test_an_event_is_routed_alike_in_both_modes() -> None:
    router = Router()
    router.group(inspect_cloud_event, Source("events", has_fields("type"), fields("type", "data")))
    seen: list[User] = []
    router.proc("user/created")(taking(seen))
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "user/created"}

    await router.process(json.dumps({**event, "data": {"id": 1}}).encode())
    await router.process(b'{"id": 2}', {f"ce-{name}": value for name, value in event.items()})

    assert seen == [User(1), User(2)]


def taking(seen: list[User]) -> Any:
    async def handler(user: User) -> None:
        seen.append(user)

    return handler


@pytest.mark.parametrize(
    "message",
    [b"", b"no JSON", b"[]", b'{"type": "user/created"}', b'{"payload": {}}', b"\xff", b'{"a":' * 10_000],
    ids=["empty", "text", "list", "no payload", "no type", "no UTF-8", "bottomless"],
)
async def test_a_message_that_no_source_takes_fails(message: bytes) -> None:
    router, seen = users()

    with pytest.raises(NoSourceError, match=f"of {len(message)} bytes"):
        await router.process(message)
    assert seen == []


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (raw(payload={"id": "one"}), DecodeError),
        (raw(payload=[1]), DecodeError),
        (raw(payload=json.loads("[" * 50 + "]" * 50)), DecodeError),
        (raw(payload={"id": -1}), InvalidPayloadError),
        (raw("user/deleted"), NoHandlerError),
        (b'{"type": 7, "payload": {}}', ParseError),
        (b'{"type": null, "payload": {}}', ParseError),
    ],
    ids=["wrong type", "wrong shape", "50 levels", "invalid", "no handler", "key a number", "key null"],
)
async def test_a_message_that_reaches_no_handler_fails_with_the_step_that_refused_it(
    message: bytes, error: type[Exception]
) -> None:
    router, seen = users()

    with pytest.raises(error):
        await router.process(message)
    assert seen == []


async def test_who_waits_gets_the_result_of_a_func_and_an_empty_one_of_a_proc() -> None:
    answers = Answers()
    router, _ = users(asking(answers))
    router.func("lookup-user")(looking_up)

    await router.process(raw("lookup-user"))
    await router.process(raw())

    assert answers.given == [("reply", {"id": 1}), ("reply", {})]


async def looking_up(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


async def test_who_waits_is_told_of_a_failure_and_so_is_the_transport() -> None:
    answers, error = Answers(), NonRetriableError("no such user")
    router = Router(asking(answers))
    router.proc("user/created")(raising(error))

    with pytest.raises(NonRetriableError) as raised:
        await router.process(raw())

    assert raised.value is error
    assert answers.given == [("fail", error)]


def raising(error: Exception) -> Any:
    async def handler(payload: object) -> None:
        raise error

    return handler


async def test_a_replier_that_fails_does_not_hide_the_handlers_error() -> None:
    answers, error = Answers(broken=True), ValueError("the real reason")
    router = Router(asking(answers))
    router.proc("user/created")(raising(error))

    with pytest.raises(ValueError, match="the real reason") as raised:
        await router.process(raw())

    assert raised.value is error
    assert "nobody listens" in error.__notes__[0]


async def test_an_answer_that_cannot_be_given_fails_the_message_and_is_not_followed_by_its_opposite() -> None:
    answers = Answers(broken=True)
    router, _ = users(asking(answers))

    with pytest.raises(ConnectionError):
        await router.process(raw())
    assert answers.given == [("reply", {})]


@pytest.mark.parametrize(
    ("message", "hook"),
    [
        (raw("user/deleted"), "on_no_handler"),
        (raw(payload={"id": "one"}), "on_decode_error"),
        (raw(payload={"id": -1}), "on_validation_error"),
    ],
)
async def test_who_waits_for_a_message_that_is_skipped_gets_an_answer_too(message: bytes, hook: str) -> None:
    answers = Answers()
    router, seen = users(asking(answers, hooks=Hooks(**{hook: SKIP})))

    processed = await router.process(message)

    assert seen == []
    assert answers.given == [("reply", {})]
    assert processed.skipped is not None


async def test_who_waits_hears_nothing_yet_when_the_handler_asks_to_be_called_again() -> None:
    answers = Answers()
    router = Router(asking(answers))
    router.proc("raised")(raising(RequeueAfter(MINUTE)))
    router.proc("grouped")(raising(ExceptionGroup("a TaskGroup", [RequeueAfter(MINUTE)])))

    @router.func("returned")
    async def returned(payload: object) -> RequeueAfter:
        return RequeueAfter(MINUTE)

    for key in ("raised", "grouped", "returned"):
        with pytest.raises(RequeueAfter):
            await router.process(raw(key))
    assert answers.given == []


async def test_a_handler_that_asks_for_more_keys_has_handled_its_message() -> None:
    answers = Answers()
    router = Router(asking(answers))
    router.proc("more")(raising(QueueKeys(QueueKey("next"))))

    with pytest.raises(QueueKeys):
        await router.process(raw("more"))
    assert answers.given == [("reply", {})]


def test_a_handler_or_a_source_that_is_registered_twice_is_refused() -> None:
    router, _ = users()

    with pytest.raises(DuplicateRouteError, match="'user/created'"):
        router.func("user/created")(ignore)
    with pytest.raises(DuplicateRouteError, match="'envelope'"):
        router.add(ENVELOPE)


async def test_a_discriminator_that_raises_fails_the_message_instead_of_passing_it_on() -> None:
    def broken(view: Mapping[str, Any]) -> bool:
        raise ZeroDivisionError

    router, seen = users(named("broken", broken), ENVELOPE)

    with pytest.raises(ZeroDivisionError):
        await router.process(raw())
    assert seen == []
