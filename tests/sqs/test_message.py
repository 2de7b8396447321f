"""A key as an SQS message, and what a message is a key of."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from workqueue.errors import InvalidKeyError, InvalidOptionsError, InvalidSettingError, PayloadTooLargeError
from workqueue.options import MAX_META_BYTES, Options
from workqueue.sources.sqs import Message, SQSSettings, parse_key
from workqueue.sqs.address import Address
from workqueue.sqs.message import MAX_MESSAGE_BYTES, outgoing, read_body, stamped
from workqueue.sqs.sink import batches

EVERYTHING = Options(
    -7,
    datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=2))),
    not_before_floor=True,
    payload=bytes(range(256)),
    meta={"a": "ü"},
)


@pytest.mark.parametrize("options", [Options(), EVERYTHING, Options(payload=b"")], ids=["nothing", "all", "empty"])
def test_a_key_comes_back_as_it_was_sent(options: Options) -> None:
    message = outgoing("kü\u2028", options)

    assert message.body.isascii()
    assert read_body(message.body) == ("kü\u2028", options)


def test_a_message_has_the_number_that_it_was_stamped_with() -> None:
    once = stamped(Options(meta={"a": "b"}))

    first, again = outgoing("a", once), outgoing("a", stamped(once))

    assert first.number == again.number
    assert json.loads(first.body)["meta"] == {"a": "b"}
    assert outgoing("a", Options()).number != outgoing("a", Options()).number


def test_a_meta_without_room_is_sent_unstamped() -> None:
    full = Options(meta={"a": "x" * (MAX_META_BYTES - 1)})

    assert stamped(full) is full


def test_what_sqs_would_not_take_is_refused_before_it_is_sent() -> None:
    with pytest.raises(PayloadTooLargeError, match="SQS takes at most"):
        outgoing("a", Options(payload=bytes(MAX_MESSAGE_BYTES)))
    with pytest.raises(InvalidKeyError):
        outgoing("a\n", Options())


def test_batches_have_ten_messages_and_a_mebibyte_at_most() -> None:
    small, large = outgoing("a", Options()), outgoing("a", Options(payload=bytes(400 * 1024)))

    assert [len(batch) for batch in batches([small] * 21)] == [10, 10, 1]
    assert [len(batch) for batch in batches([large, small, large, large])] == [2, 1, 1]
    assert [len(batch) for batch in batches([])] == []


@pytest.mark.parametrize("body", ["", "no JSON", "[]", "null", "{}", '{"key": "a"}', '{"workqueue": 2, "key": "a"}'])
def test_a_message_of_somebody_else_is_not_taken_for_ours(body: str) -> None:
    assert read_body(body) is None


@pytest.mark.parametrize(
    "more",
    ['"x": 1', '"key": "a", "payload_base64": "!"', '"key": "a", "not_before": "soon"', '"key": "a", "priority": "x"'],
)
def test_a_message_of_ours_that_is_broken_is_an_error(more: str) -> None:
    with pytest.raises(InvalidOptionsError, match="cannot be read"):
        read_body('{"workqueue": 1, ' + more + "}")


def message(body: str, **attributes: str) -> Message:
    return Message("number-1", body, attributes, "receipt")


@pytest.mark.parametrize(
    ("key_of", "body", "key", "payload"),
    [
        ("own", outgoing("a", Options(payload=b"p")).body, "a", b"p"),
        ("own", "text", "number-1", b"text"),
        ("body", " a\n", "a", None),
        ("attribute:customer", "text", "c-7", b"text"),
        ("json:a.b", '{"a": {"b": 7}}', "7", b'{"a": {"b": 7}}'),
    ],
)
def test_the_key_of_a_message(key_of: str, body: str, key: str, payload: bytes | None) -> None:
    found, options = parse_key(key_of)(message(body, customer="c-7"))

    assert (found, options.payload) == (key, payload)


@pytest.mark.parametrize(
    ("key_of", "body"),
    [
        ("attribute:other", ""),
        ("json:a", "no JSON"),
        ("json:a", "[]"),
        ("json:a", '{"b": 1}'),
        ("json:a", '{"a": true}'),
        ("json:a", '{"a": [1]}'),
        ("json:a", "[" * 100_000),
    ],
)
def test_a_message_without_its_key_says_why(key_of: str, body: str) -> None:
    with pytest.raises(ValueError, match=r"its body|no attribute|Expecting"):
        parse_key(key_of)(message(body))


@pytest.mark.parametrize("text", ["", "key", "attribute:", "json:", "xpath:a"])
def test_an_expression_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InvalidSettingError, match="own, body"):
        parse_key(text)


def test_an_address_is_the_queues_url() -> None:
    plain = Address.parse("sqs://sqs.eu-west-1.amazonaws.com/123456789012/builds")
    fifo = Address.parse("sqs://vpce-1-2.sqs.us-east-2.vpce.amazonaws.com/123456789012/builds.fifo?patience=5m")
    local = Address.parse("sqs://localhost/123456789012/q?endpoint=http://127.0.0.1:9&region=eu-north-1")

    assert (plain.queue_url, plain.region) == ("https://sqs.eu-west-1.amazonaws.com/123456789012/builds", "eu-west-1")
    assert (plain.endpoint, plain.name, plain.fifo) == ("https://sqs.eu-west-1.amazonaws.com", "builds", False)
    assert (fifo.region, fifo.fifo, fifo.patience) == ("us-east-2", True, timedelta(minutes=5))
    assert (local.region, local.endpoint) == ("eu-north-1", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqs://builds", "names no SQS queue"),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/q", "names no SQS queue"),
        ("sqs://sqs.eu-west-1.amazonaws.com/1/q", "names no SQS queue"),
        ("sqs://sqs.eu-west-1.amazonaws.com/123456789012/q?what=1", "no setting what"),
        ("sqs://sqs.eu-west-1.amazonaws.com/123456789012/q?patience=soon", "patience=soon"),
        ("sqs://sqs.eu-west-1.amazonaws.com/123456789012/q?endpoint=here", "endpoint=here"),
    ],
)
def test_an_address_that_is_none_says_so(url: str, says: str) -> None:
    with pytest.raises(InvalidSettingError, match=says):
        Address.parse(url)


@pytest.mark.parametrize("wrong", [{"receivers": 0}, {"receivers": 101}, {"hidden": timedelta(0)}])
def test_a_setting_out_of_range_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidSettingError, match=next(iter(wrong))):
        SQSSettings(**wrong)  # type: ignore[arg-type]


def test_not_befores_are_compared_as_moments() -> None:
    found = read_body(outgoing("a", EVERYTHING).body)

    assert found is not None
    assert found[1].not_before == datetime(2029, 12, 31, 22, tzinfo=UTC)
