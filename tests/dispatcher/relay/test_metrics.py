"""What a relay counts."""

from __future__ import annotations

from dispatcher.relay.metrics import RelayMetrics


def test_after_a_hundred_targets_the_rest_share_one_series() -> None:
    metrics = RelayMetrics("relay", lambda: {"b120:80": 1.0})

    for number in range(150):
        metrics.called(f"b{number}:80", "delivered")
        metrics.put_off(f"b{number}:80")

    calls = {labels: value for name, labels, value in metrics.samples() if name == "workqueue_relay_calls_total"}
    down = {labels[0]: value for name, labels, value in metrics.samples() if name == "workqueue_relay_target_down"}
    assert (len(calls), calls["b99:80", "delivered"], calls["other", "delivered"]) == (404, 1, 50)
    assert (len(down), down["other"], down["b0:80"]) == (101, 1, 0)


def test_a_target_that_is_up_again_is_shown_as_such() -> None:
    down = {"b:80": 1.0}
    metrics = RelayMetrics("relay", lambda: down)

    before = list(metrics.samples())
    down.clear()

    assert ("workqueue_relay_target_down", ("b:80",), 1) in before
    assert ("workqueue_relay_target_down", ("b:80",), 0) in list(metrics.samples())


def test_what_has_not_happened_yet_is_shown_as_zero_so_that_its_first_time_is_an_increase() -> None:
    assert [(labels, value) for _, labels, value in RelayMetrics("relay").samples()] == [
        (("stored",), 0),
        (("repeated",), 0),
        (("refused",), 0),
        (("unavailable",), 0),
    ]
