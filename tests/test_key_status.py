"""What users see of where a key is."""

from __future__ import annotations

import json

import pytest

from workqueue import KeyState, KeyStatus


@pytest.mark.parametrize("status", KeyStatus)
def test_where_a_key_is_is_a_word_in_the_json_of_users(status: KeyStatus) -> None:
    document = json.loads(json.dumps({"status": KeyState("a", status).status}))

    assert document == {"status": status.name.lower().replace("_", "-").replace("dead-letter", "dead-lettered")}
