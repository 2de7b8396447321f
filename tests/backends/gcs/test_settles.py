"""Whether a settle was applied, where an earlier one of the same attempt failed without an answer."""

from __future__ import annotations

from itertools import product

from workqueue.backends.gcs.api.objects import Deleted
from workqueue.backends.gcs.handles import APPLIED, Earlier


def test_every_case_is_decided() -> None:
    assert set(APPLIED) == set(product(Deleted, Earlier))


def test_a_settle_whose_delete_was_done_was_applied_and_an_only_one_that_found_nothing_was_not() -> None:
    for deleted in Deleted:
        assert APPLIED[deleted, Earlier.NONE] is deleted.by_us


def test_an_owner_whose_lease_lapsed_does_not_take_another_attempt_for_the_outcome_of_its_own_settle() -> None:
    assert not APPLIED[Deleted.CHANGED, Earlier.UNSURE_AND_LAPSED]
