"""The conformance suite: what every queue promises, as scenarios that any backend's author can run.

`run(url)` runs all of them on a store that `open_queue` knows; for a backend of your own write a `Target` and call
`run_all(target)`. It needs no test framework. docs/writing-a-backend.md has an example.
"""

from __future__ import annotations

from workqueue.conformance.case import Case, Target
from workqueue.conformance.runner import Result, report, run, run_all, run_scenario
from workqueue.conformance.scenario import Need, Scenario
from workqueue.conformance.suite import all_scenarios
from workqueue.conformance.target import URLTarget

__all__ = [
    "Case",
    "Need",
    "Result",
    "Scenario",
    "Target",
    "URLTarget",
    "all_scenarios",
    "report",
    "run",
    "run_all",
    "run_scenario",
]
