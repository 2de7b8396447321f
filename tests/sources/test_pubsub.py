"""Which notes about a bucket may mean that there is a key to start."""

from __future__ import annotations

import pytest

from workqueue.sources.pubsub import Note


@pytest.mark.parametrize(
    ("name", "event", "is_news"),
    [
        ("queued/a", "OBJECT_FINALIZE", True),
        ("queued/a", "OBJECT_METADATA_UPDATE", True),
        ("team/queued/a", "OBJECT_FINALIZE", True),
        ("queued/a", "OBJECT_DELETE", False),
        ("queued/a", "OBJECT_ARCHIVE", False),
        ("in-progress/a", "OBJECT_FINALIZE", False),
        ("dead-letter/a", "OBJECT_FINALIZE", False),
        ("in-progress-settings", "OBJECT_FINALIZE", False),
        ("", "", True),
    ],
)
def test_only_what_may_have_queued_a_key_is_news(name: str, event: str, is_news: bool) -> None:
    assert Note("1", event, name).is_news is is_news
