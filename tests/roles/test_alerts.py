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


def fires_as_told(promtool: str, rules: str, tests: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run tests of a file of rules against this text of it."""
    (folder / "rules.yml").write_text(rules)
    (folder / "tests.yml").write_text(tests)
    command = [promtool, "test", "rules", "tests.yml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_the_rules_are_sound_and_fire_as_their_tests_say(promtool: str, path: Path, tmp_path: Path) -> None:
    done = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tests = TESTS / path.name
    assert [(TESTS / rule).resolve() for rule in load(tests)["rule_files"]] == [path]
    # As a text: to YAML, the series 0x12 is the number 18.
    text = tests.read_text().replace(load(tests)["rule_files"][0], "rules.yml")
    done = fires_as_told(promtool, path.read_text(), text, tmp_path)
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


def told_of(alert: str, path: Path) -> str:
    """Return the tests of one alert alone, with every value as the text it is."""
    told = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    tests = []
    for test in told["tests"]:
        asked = [question for question in test.get("alert_rule_test", []) if question["alertname"] == alert]
        if asked:
            tests.append({"interval": test["interval"], "input_series": test["input_series"], "alert_rule_test": asked})
    return yaml.safe_dump(told | {"rule_files": ["rules.yml"], "tests": tests})


def mistakes(path: Path) -> Iterator[Any]:
    """Yield every alert, and its file with one threshold or duration of it doubled or halved."""
    for alert in alerts(path):
        name = alert["alert"]
        text = path.read_text()
        begin = text.index(f"- alert: {name}\n")
        end = text.index("annotations:", begin)
        rule = text[begin:end]
        changed = {}
        if found := re.search(r"(?<=[<>] )[\d.]+$", rule, re.MULTILINE):
            for factor in (2, 0.5):
                if value := float(found[0]) * factor:
                    changed[f"{found[0]} becomes {value:g}"] = rule.replace(f" {found[0]}\n", f" {value:g}\n")
        if found := re.search(r"(?<=for: )(\d+)([sm])$", rule, re.MULTILINE):
            seconds = int(found[1]) * {"s": 1, "m": 60}[found[2]]
            for value in (2 * seconds, seconds // 2):
                changed[f"{found[0]} becomes {value}s"] = rule.replace(f"for: {found[0]}\n", f"for: {value}s\n")
        for what, mistake in changed.items():
            assert mistake != rule
            yield pytest.param(path, name, text[:begin] + mistake + text[end:], id=f"{name}: {what}")


@pytest.mark.parametrize(("path", "alert", "text"), [mistake for path in RULES for mistake in mistakes(path)])
def test_another_threshold_or_duration_is_noticed(
    promtool: str, path: Path, alert: str, text: str, tmp_path: Path
) -> None:
    done = fires_as_told(promtool, text, told_of(alert, TESTS / path.name), tmp_path)
    assert done.returncode != 0, "no test of this alert tells the difference"
    # Tests that could not be run would be red as well.
    assert f"alertname: {alert}, time: " in done.stdout + done.stderr
