"""Which of several dispatchers of a bucket takes which keys first, and how a newcomer finds out about the others."""

from __future__ import annotations

from workqueue.backends.gcs.listing.running import STRANGER
from workqueue.backends.gcs.sharing.peers import Peers

NAMES = ["a3f0c2d4e5061728", "90b1c2d3e4f50617", "1827364554637281", "27364554637281a0"]
KEYS = [f"customer-{number}/order" for number in range(4000)]


def knowing(name: str, others: list[str], now_us: int = 0) -> Peers:
    peers = Peers(name)
    peers.saw(others, now_us)
    return peers


def test_every_key_has_one_dispatcher_that_takes_it_first() -> None:
    everybody = [knowing(name, NAMES) for name in NAMES]
    for key in KEYS[:500]:
        assert sorted(peers.ahead(key) for peers in everybody) == [0, 1, 2, 3]


def test_the_keys_are_shared_out_evenly() -> None:
    for peers in [knowing(name, NAMES) for name in NAMES]:
        assert 0.8 < 4 * sum(not peers.ahead(key) for key in KEYS) / len(KEYS) < 1.2


def test_two_dispatchers_agree_who_is_ahead_whomever_else_they_know_of() -> None:
    first, second = knowing(NAMES[0], NAMES), knowing(NAMES[1], NAMES[:2])
    taken_by_both = [key for key in KEYS if not first.ahead(key) and not second.ahead(key)]
    assert taken_by_both == []


def test_a_dispatcher_that_was_not_seen_for_a_minute_is_forgotten() -> None:
    peers = knowing(NAMES[0], NAMES)
    assert (len(peers), peers.alone) == (4, False)
    for _ in range(2):
        peers.saw([NAMES[0]], 60_000_001)
    assert (len(peers), peers.alone) == (1, True)
    assert all(peers.ahead(key) == 0 for key in KEYS[:100])


def test_nothing_is_left_to_go_which_does_not_share_but_nobody_is_alone_beside_it() -> None:
    peers = Peers(NAMES[0])
    for _ in range(4):
        peers.saw([STRANGER], 0)
    assert all(peers.ahead(key) == 0 for key in KEYS[:100])
    assert (len(peers), peers.alone) == (1, False)


def test_nobody_can_tell_at_first_whether_it_is_alone() -> None:
    assert not knowing(NAMES[0], []).alone


def test_a_newcomer_tries_a_few_keys_then_any_number_and_steps_aside_when_it_loses_most() -> None:
    peers = Peers(NAMES[0])
    few = peers.at_once
    peers.tried(few, lost=0)
    assert (peers.at_once > 1000, peers.reach) == (True, 1)
    peers.tried(25, lost=3)
    assert (peers.at_once > 1000, peers.reach) == (True, 1)
    peers.tried(25, lost=13)
    peers.tried(4, lost=4)
    assert (peers.at_once, peers.reach) == (few, 16)
    for _ in range(20):
        peers.tried(4, lost=4)
    assert peers.reach <= 256
    peers.tried(4, lost=0)
    assert (peers.at_once > 1000, peers.reach) == (True, 1)
