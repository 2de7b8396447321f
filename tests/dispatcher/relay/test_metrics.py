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
    assert (len(calls), calls["b99:80", "delivered"], calls["other", "delivered"]) == (101, 1, 50)
    assert (len(down), down["other"], down["b0:80"]) == (101, 1, 0)


def test_a_target_that_is_up_again_is_shown_as_such() -> None:
    down = {"b:80": 1.0}
    metrics = RelayMetrics("relay", lambda: down)

    before = list(metrics.samples())
    down.clear()

    assert before == [("workqueue_relay_target_down", ("b:80",), 1)]
    assert list(metrics.samples()) == [("workqueue_relay_target_down", ("b:80",), 0)]
