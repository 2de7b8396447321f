"""What a handler in another language is given."""

from __future__ import annotations

import json
from typing import Any

import pytest

import dispatcher
from dispatcher import Attempt
from dispatcher.targets.document import key_document
from tests.support.dispatching import memory
from workqueue import Options


@pytest.mark.parametrize(
    ("payload", "fields"),
    [
        (None, {}),
        (b"", {"payload": ""}),
        (b'{"n": 1}', {"payload": '{"n": 1}'}),
        ("café".encode(), {"payload": "café"}),
        (b"\xff\x00", {"payloadBase64": "/wA="}),
    ],
    ids=str,
)
async def test_a_payload_is_text_where_it_is_utf_8_and_base64_where_it_is_not(
    payload: bytes | None, fields: dict[str, str]
) -> None:
    queue, documents = memory(), []

    async def callback(key: str, attempt: Attempt) -> None:
        documents.append(json.loads(json.dumps(key_document(key, attempt))))

    await queue.queue("a", Options(payload=payload))
    await dispatcher.handle(queue, callback=callback)

    document: dict[str, Any] = documents[0]
    assert {name: document[name] for name in document if name.startswith("payload")} == fields
    assert document["queuedTime"].endswith("Z")
