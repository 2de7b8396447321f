"""Each alert is unit-tested by promtool: it fires for what it is about, and is silent just short of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.prometheus import program
from tests.support.processes import Ended, ran

REPOSITORY = Path(__file__).resolve().parents[2]
RULES = REPOSITORY / "deploy" / "prometheus" / "alerts.yaml"
CASES = Path(__file__).with_name("alerts_test.yaml")


def alerts() -> list[str]:
    [group] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule["alert"] for rule in group["rules"]]


def cases() -> list[Any]:
    tests = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    return [case for test in tests for case in test["alert_rule_test"]]


def checked(rules: str, folder: Path) -> Ended:
    """What promtool says of these rules."""
    (folder / "alerts.yaml").write_text(rules, encoding="utf-8")
    shutil.copy(CASES, folder)
    command = [program("promtool"), "test", "rules", str(folder / CASES.name)]
    return ran(command)


def test_the_rules_do_what_their_cases_say(tmp_path: Path) -> None:
    done = checked(RULES.read_text(encoding="utf-8"), tmp_path)

    assert done.code == 0, done.out + done.err


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_is_seen_to_fire_and_to_be_silent(alert: str) -> None:
    expected = [bool(case["exp_alerts"]) for case in cases() if case["alertname"] == alert]

    assert set(expected) == {True, False}


@pytest.mark.parametrize("alert", alerts())
def test_the_cases_notice_a_rule_that_never_fires(alert: str, tmp_path: Path) -> None:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for rule in rules["groups"][0]["rules"]:
        if rule["alert"] == alert:
            rule["expr"] = f"({rule['expr']}) > 1e9"

    assert checked(yaml.safe_dump(rules), tmp_path).code != 0
