"""Prometheus' rules by Prometheus' own promtool, without a host: every alert fires when it should, and not before."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT

RULES = sorted((ROOT / "roles" / "prometheus" / "files" / "etc" / "prometheus" / "rules").glob("*.yml"))
TESTS = ROOT / "tests" / "rules"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def alerts(path: Path) -> list[dict[str, Any]]:
    return [rule for group in load(path)["groups"] for rule in group["rules"] if "alert" in rule]


def fires_as_told(promtool: str, rules: str, tests: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests of a file of rules against this text of it."""
    (folder / "rules.yml").write_text(rules)
    # As a text: to YAML, the series 0x12 is the number 18.
    (folder / "tests.yml").write_text(tests.read_text().replace(load(tests)["rule_files"][0], "rules.yml"))
    command = [promtool, "test", "rules", "tests.yml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_the_rules_are_sound_and_fire_as_their_tests_say(promtool: str, path: Path, tmp_path: Path) -> None:
    done = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tests = TESTS / path.name
    assert [(TESTS / rule).resolve() for rule in load(tests)["rule_files"]] == [path]
    done = fires_as_told(promtool, path.read_text(), tests, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_alert_has_a_test_in_which_it_fires(path: Path) -> None:
    told = [alert for test in load(TESTS / path.name)["tests"] for alert in test.get("alert_rule_test", [])]
    fire = {alert["alertname"] for alert in told if alert.get("exp_alerts")}
    assert [alert["alert"] for alert in alerts(path) if alert["alert"] not in fire] == []


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_a_metric_that_several_jobs_have_is_asked_of_one(path: Path) -> None:
    """Prometheus adds `up` for every job, and each program with a client library has process_*."""
    rules = [rule for group in load(path)["groups"] for rule in group["rules"]]
    for rule in rules:
        for name, labels in re.findall(r"\b(up|process_\w+)\b({[^}]*})?", rule["expr"]):
            assert 'job="' in labels, f"{rule.get('alert', rule.get('record'))}: {name}{labels}"


def mistakes(path: Path) -> Iterator[Any]:
    """Yield every file with one threshold or duration in it doubled or halved."""
    for alert in alerts(path):
        text = path.read_text()
        begin = text.index(f"- alert: {alert['alert']}\n")
        end = text.index("annotations:", begin)
        rule = text[begin:end]
        changed = {}
        if found := re.search(r"(?<=[<>] )[\d.]+$", rule, re.MULTILINE):
            for factor in (2, 0.5):
                if value := float(found[0]) * factor:
                    changed[f"{found[0]} becomes {value:g}"] = rule.replace(f" {found[0]}\n", f" {value:g}\n")
        if found := re.search(r"(?<=for: )(\d+)([sm])$", rule, re.MULTILINE):
            for value in (2 * int(found[1]), int(found[1]) // 2):
                changed[f"{found[0]} becomes {value}{found[2]}"] = rule.replace(found[0], f"{value}{found[2]}")
        for what, mistake in changed.items():
            assert mistake != rule
            yield pytest.param(path, text[:begin] + mistake + text[end:], id=f"{alert['alert']}: {what}")


@pytest.mark.parametrize(("path", "text"), [mistake for path in RULES for mistake in mistakes(path)])
def test_another_threshold_or_duration_is_noticed(promtool: str, path: Path, text: str, tmp_path: Path) -> None:
    done = fires_as_told(promtool, text, TESTS / path.name, tmp_path)
    assert done.returncode != 0, "no test of this alert tells the difference"
