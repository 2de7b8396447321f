"""Every backend against the plain model of DESIGN §4: random lives with crashes, lapsed leases and stale owners."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import QueueMachine
from tests.support.backends import Backend
from workqueue.conformance import Target

LIVES = settings(
    stateful_step_count=40,
    deadline=None,  # a life on a server takes as long as its answers do
    suppress_health_check=list(HealthCheck),
)


def test_a_queue_looks_like_its_model_after_every_step(backend: Backend, target: Target) -> None:
    machine = type("Machine", (QueueMachine,), {"target": target, "lacks": backend.lacks})

    run_state_machine_as_test(machine, settings=settings(LIVES, max_examples=backend.lives))
