"""What this process did since a listing was begun outdates what the listing says."""

from __future__ import annotations

from workqueue.backends.gcs.api.objects import Stored
from workqueue.backends.gcs.listing.overlay import Overlay
from workqueue.backends.gcs.listing.packed import Candidate, pack
from workqueue.backends.gcs.metadata import entry_of


def queued(key: str, generation: int, metageneration: int = 1) -> Candidate:
    return Candidate(key, Stored("", generation, metageneration, 1_000_000, 0), entry_of({}, key, 1_000_000, 0))


def test_a_key_that_this_process_left_alone_is_as_listed() -> None:
    overlay = Overlay()
    overlay.note("a", None)
    assert not overlay.outdates(queued("b", 1))


def test_a_key_that_this_process_removed_is_not_there_whatever_the_listing_says() -> None:
    overlay = Overlay()
    overlay.note("a", pack(queued("a", 1)))
    overlay.note("a", None)
    assert overlay.outdates(queued("a", 1))
    assert list(overlay.queued()) == []


def test_a_key_that_this_process_stored_is_there_as_it_was_stored_last() -> None:
    overlay = Overlay()
    overlay.note("a", pack(queued("a", 2, 1)))
    overlay.note("a", pack(queued("a", 2, 2)))
    assert [overlay.outdates(queued("a", *version)) for version in ((1, 1), (2, 1), (2, 2))] == [True, True, False]
    assert list(overlay.queued()) == [queued("a", 2, 2)]
