"""Prometheus' rules by Prometheus' own promtool, without a host: every alert fires when it should, and not before."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT
from tests.promql import metrics
from tests.promtool import SETTINGS, TESTS, dump, needs, parse, write_tests
from tests.runbooks.faults import NOT_RUN, TOGETHER, Fault
from tests.runbooks.hurried import SECONDS as UNITS
from tests.runbooks.hurried import hurried
from tests.runbooks.page import commands, written
from tools.rules.__main__ import TARGET, rendered
from tools.rules.objectives import DAYS
from tools.rules.parts import RUNBOOKS, RUNBOOKS_PAGE

RULES = sorted(TARGET.glob("*.yml"))
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
CAUSED = [fault for lists in TOGETHER.values() for faults in lists.values() for fault in faults]

each_file = pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)


@cache
def load(path: Path) -> Any:
    """Read a file of rules or tests."""
    return parse(path.read_text(encoding="utf-8"))


def rules(path: Path) -> list[dict[str, Any]]:
    return [rule for group in load(path)["groups"] for rule in group["rules"]]


def alerts(path: Path) -> list[dict[str, Any]]:
    return [rule for rule in rules(path) if "alert" in rule]


def run(promtool: str, *arguments: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run promtool; what it says comes in order, in the standard output."""
    return subprocess.run(
        [promtool, *arguments],
        cwd=folder,
        env=os.environ | SETTINGS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_committed_rules_are_what_the_code_makes() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in TARGET.glob("*")}
    assert committed == rendered(), "run `make rules` and commit what it writes"


def test_the_rules_are_sound(promtool: str) -> None:
    done = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_alerts_fire_as_their_tests_say(promtool: str, tmp_path: Path) -> None:
    files = [file for path in RULES for file in write_tests(tmp_path, path.name, path.read_text(encoding="utf-8"))]
    done = run(promtool, "test", "rules", *files, folder=tmp_path)
    assert done.stdout.count("SUCCESS") == len(files), done.stdout
    assert done.returncode == 0, done.stdout


@each_file
def test_every_alert_has_a_test_in_which_it_fires(path: Path) -> None:
    told = [alert for test in load(TESTS / path.name)["tests"] for alert in test.get("alert_rule_test", [])]
    fire = {alert["alertname"] for alert in told if alert.get("exp_alerts")}
    assert [alert["alert"] for alert in alerts(path) if alert["alert"] not in fire] == []


@each_file
def test_a_metric_that_several_jobs_have_is_asked_of_one(path: Path) -> None:
    """Prometheus adds `up` for every job, and each program with a client library has process_*."""
    for rule in rules(path):
        for name, labels in re.findall(r"\b(up|process_\w+)\b({[^}]*})?", rule["expr"]):
            assert re.search(r"\bjob[=!]", labels), f"{rule.get('alert', rule.get('record'))}: {name}{labels}"


@each_file
def test_who_is_told_learns_how_bad_it_is_and_what_to_do(path: Path) -> None:
    text = (ROOT / RUNBOOKS).read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    for alert in alerts(path):
        name = alert["alert"]
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert set(alert["annotations"]) == {"summary", "description", "runbook", "runbook_url"}, name
        assert alert["annotations"]["runbook"] == f"{RUNBOOKS}#{name.lower()}"
        assert alert["annotations"]["runbook_url"] == f"{{{{ $externalURL }}}}/{RUNBOOKS_PAGE}#{name.lower()}"
        if alert["labels"]["severity"] == "info":
            assert sections[name].strip(), name
        else:
            told = re.findall(r"^\*\*(\w+)\.\*\* \S", sections[name], re.MULTILINE)
            assert told == ["Confirm", "Act", "Check"], name
        # `up == 0`, say, has no other value than the one that the sentence tells in words.
        if re.search(r"[<>]=? (?!0\b(?![.]))[\d.]", alert["expr"]):
            assert "$value" in alert["annotations"]["summary"], name


def test_every_section_of_the_runbooks_is_of_an_alert() -> None:
    sections = re.findall(r"^## (\w+)$", (ROOT / RUNBOOKS).read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(sections) == sorted(alert["alert"] for path in RULES for alert in alerts(path))


def test_the_runbook_of_each_alert_is_tried_on_a_host_or_it_is_said_why_not() -> None:
    caused = [fault.alert for fault in CAUSED]
    assert sorted([*caused, *NOT_RUN]) == sorted(alert["alert"] for path in RULES for alert in alerts(path))
    assert all(NOT_RUN.values())


@pytest.mark.parametrize("folder", TOGETHER)
def test_the_tests_of_a_scenario_cause_all_of_its_faults(folder: str) -> None:
    text = (ROOT / "tests" / folder / "test_runbooks.py").read_text(encoding="utf-8")
    assert f'"faults", TOGETHER["{folder}"].values()' in text


@pytest.mark.parametrize("fault", CAUSED, ids=lambda each: each.alert)
def test_a_runbook_says_what_ends_its_fault(fault: Fault) -> None:
    on_the_page = [command for step in ("Confirm", "Act", "Check") for command in written(fault.alert, step)]
    for name in fault.names:
        assert any(name in command for command in on_the_page), f"{name} is not on the page"
    # What is left open on the page can't be typed as it stands there.
    typed = [command for step in ("Confirm", "Act", "Check") for command in commands(fault, step)]
    assert [command for command in typed if re.search(r"\.\.\.|@N\b|\b(NAME|FILE|UNIT|MOUNTPOINT)\b", command)] == []
    if fault.cause:
        assert commands(fault, "Act") or fault.repair, "nothing ends it"


def test_who_waits_for_a_runbook_waits_for_the_same_rules_with_shorter_durations(promtool: str, tmp_path: Path) -> None:
    for name, text in hurried().items():
        (tmp_path / name).write_text(text)
        assert [rule.keys() for rule in rules(tmp_path / name)] == [rule.keys() for rule in rules(TARGET / name)]
        for quick, rule in zip(rules(tmp_path / name), rules(TARGET / name), strict=True):
            assert quick["expr"] == rule["expr"] or any(sign in rule["expr"] for sign in ("[", "> 120")), rule
        windows = re.findall(r"\[(\d+)(\w)", text) + re.findall(r"(?:for|interval): (\d+)(\w)$", text, re.MULTILINE)
        assert windows
        assert max(int(number) * UNITS[unit] for number, unit in windows) <= 60
    done = run(promtool, "check", "rules", *hurried(), folder=tmp_path)
    assert done.returncode == 0, done.stdout


def test_what_an_expression_asks_for_is_found() -> None:
    """By this a test on a host compares the rules with what Prometheus has."""
    asked = 'sum by (a, b) (rate(one_total{x="two", y=~"3"}[5m])) / on (c) group_left (d) (three:four > 0.5) offset 1h'
    assert metrics(asked) == {"one_total", "three:four"}
    assert metrics('label_replace(up{job="x"}, "host", "$1", "instance", "(.+)") == 0 unless absent(five)') == {
        "up",
        "five",
    }
    assert metrics("vector(1)") == set()


def test_the_budget_of_errors_fits_what_prometheus_keeps() -> None:
    kept = yaml.safe_load((ROOT / "roles/prometheus/defaults/main.yml").read_text())["prometheus_retention_time"]
    assert kept.endswith("d")
    assert int(kept[:-1]) >= DAYS


@dataclass(frozen=True)
class Mistake:
    """A rule with one thing of it changed, and the rules that go by it."""

    of: str
    what: str
    alert: str
    rules: tuple[dict[str, Any], ...]


def changed(rule: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what may go wrong in a rule: a threshold, a duration, or a matcher that is missing."""
    expr = rule["expr"]
    for found in re.finditer(r"(?<=[^=!][<>] |[<>]= )\d+(\.\d+)?(?![\w.])", expr):
        value = float(found[0])
        # A count has no value between.
        up = value + 1 if value == int(value) < 4 else value * 1.3
        for other in (up, value / 1.3) if value else ():
            yield (
                f"{found[0]} becomes {other:.6g}",
                rule | {"expr": f"{expr[: found.start()]}{other:.6g}{expr[found.end() :]}"},
            )
    if held := re.fullmatch(r"(\d+)([sm])", rule.get("for", "")):
        seconds = int(held[1]) * {"s": 1, "m": 60}[held[2]]
        for other in (2 * seconds, seconds // 2):
            yield f"for {held[0]} becomes {other}s", rule | {"for": f"{other}s"}
    # Wherever it stands in the expression: of what is left on one side of a division, nothing remains.
    for matcher in sorted(set(re.findall(r'\w+(?:=~|!~|!=|=)"[^"]*"(?=[,}])', expr))):
        less = re.sub(rf"(?<=[{{ ]){re.escape(matcher)}(, )?", "", expr)
        yield f"without {matcher}", rule | {"expr": less.replace(", }", "}").replace("{}", "")}


def mistakes(alert: dict[str, Any], others: list[dict[str, Any]]) -> Iterator[Mistake]:
    """Yield each mistake in an alert, or in a record that it goes by, as copies of the rules under other names."""

    def uses(rule: dict[str, Any], name: str) -> bool:
        return re.search(rf"(?<![\w:]){re.escape(name)}(?![\w:])", rule["expr"]) is not None

    needed = needs([alert["expr"]], others)
    number = 0
    for rule in [*needed, alert]:
        for what, wrong in changed(rule):
            number += 1
            copies = [wrong]
            for after in [*needed[needed.index(rule) + 1 :], alert] if rule in needed else []:
                if any(uses(after, copy["record"]) for copy in copies if "record" in copy):
                    copies.append(after)
            names = {copy["record"]: f"{copy['record']}:mistake{number}" for copy in copies if "record" in copy}
            renamed = []
            for copy in copies:
                expr = copy["expr"]
                for name, other in names.items():
                    expr = re.sub(rf"(?<![\w:]){re.escape(name)}(?![\w:])", other, expr)
                key = "record" if "record" in copy else "alert"
                renamed.append(copy | {"expr": expr, key: names.get(copy[key], f"{copy[key]}Mistake{number}")})
            yield Mistake(rule.get("record", alert["alert"]), what, f"{alert['alert']}Mistake{number}", tuple(renamed))


def prepare(
    path: Path, folder: Path, turn: int, known: set[tuple[str, str]], apart: set[str]
) -> Iterator[tuple[str, list[Mistake]]]:
    """Write the mistakes in each alert that are not known yet and one of its tests; yield the names of the files.

    The first turn has the test of each alert that takes the least time. All mistakes in an alert stand side by side,
    but for the alerts whose missing matchers are to have a file each.
    """
    told = load(TESTS / path.name)
    for alert in alerts(path):
        asking = [
            {key: test[key] for key in ("interval", "external_url", "input_series") if key in test}
            | {"alert_rule_test": asked}
            for test in told["tests"]
            if (asked := [each for each in test.get("alert_rule_test", []) if each["alertname"] == alert["alert"]])
        ]
        asking = sorted(asking, key=cost)[turn:]
        wrong = [each for each in mistakes(alert, rules(path)) if (each.of, each.what) not in known] if asking else []
        matchers = [mistake for mistake in wrong if mistake.what.startswith("without ")]
        numbers = [mistake for mistake in wrong if mistake not in matchers]
        groups = [numbers, *([mistake] for mistake in matchers)] if alert["alert"] in apart else [wrong]
        for number, group in enumerate(groups):
            if not group:
                continue
            asked = asking[0]["alert_rule_test"]
            # Beside the first stands the alert as it is.
            right = [alert] * (number == 0)
            content = [*right, *(rule for mistake in group for rule in mistake.rules)]
            content = [*needs([rule["expr"] for rule in content], rules(path)), *content]
            names = [alert["alert"]] * len(right) + [mistake.alert for mistake in group]
            test = asking[0] | {"alert_rule_test": [each | {"alertname": name} for name in names for each in asked]}
            name = f"{alert['alert']}-{number}"
            (folder / f"{name}.rules").write_text(dump({"groups": [{"name": name, "rules": content}]}))
            (folder / f"{name}.yml").write_text(dump(told | {"rule_files": [f"{name}.rules"], "tests": [test]}))
            yield name, group


def cost(test: dict[str, Any]) -> float:
    """Return what a test takes promtool, in no unit: for how long rules are evaluated, and over how many series."""
    last = max(
        sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)([smhd])", each["eval_time"]))
        for each in test["alert_rule_test"]
    )
    return last * len(test["input_series"])


def noticed(said: str) -> tuple[set[str], set[str]]:
    """Return the alerts that did not fire as told, and the files of which not all could be evaluated."""
    sections = re.findall(r"^Unit Testing:  (\S+)\.yml\n(.*?)(?=^Unit Testing: |\Z)", said, re.MULTILINE | re.DOTALL)
    ended = {
        name for name, text in sections if re.search(r"^ {0,4}(?!alertname: |FAILED:|SUCCESS)\S", text, re.MULTILINE)
    }
    return set(re.findall(r"alertname: ?(\w+), time: ", said)), ended


def test_a_file_that_was_not_evaluated_is_told_from_an_alert_that_did_not_fire() -> None:
    fired = (
        "  FAILED:\n    alertname: One, time: 1m, \n        exp:[], \n        got:[\n            0:\n            ]\n\n"
    )
    ambiguous = f"{fired}    rule: Two, time: 3m0s, err: found duplicate series for the match group\n"
    unread = '  FAILED:\nd.rules: 5:11: group "a", rule 1, "Three": could not parse expression\n'
    parts = {"a": "  SUCCESS\n\n", "b": f"{fired}\n", "c": f"{ambiguous}\n", "d": f"{unread}\n"}
    said = "".join(f"Unit Testing:  {name}.yml\n{text}" for name, text in parts.items())
    assert noticed(said) == ({"One"}, {"c", "d"})


@each_file
@pytest.mark.long
def test_another_threshold_duration_or_matcher_is_noticed(promtool: str, path: Path, tmp_path: Path) -> None:
    """All those of a file are tested by one process: starting one takes longer than most tests."""
    made = {(each.of, each.what) for alert in alerts(path) for each in mistakes(alert, rules(path))}
    assert made
    found: set[tuple[str, str]] = set()
    apart: set[str] = set()
    turn = 0
    while prepared := list(prepare(path, tmp_path, turn, found, apart)):
        done = run(promtool, "test", "rules", *(f"{name}.yml" for name, _ in prepared), folder=tmp_path)
        assert done.stdout.count("Unit Testing: ") == len(prepared), done.stdout[-4000:]
        alert_names, ended = noticed(done.stdout)
        # Where a matcher that is missing makes an expression ambiguous, the test ends: the same turn again, each alone.
        if together := {name.partition("-")[0] for name in ended} - apart:
            apart |= together
            continue
        # Tests that could not be run would be red as well.
        assert {name.partition("-")[0] for name, _ in prepared} & alert_names == set(), done.stdout[:4000]
        for name, wrong in prepared:
            for mistake in wrong:
                if mistake.alert in alert_names or (name in ended and mistake.what.startswith("without ")):
                    found.add((mistake.of, mistake.what))
        turn += 1
    assert sorted(f"{of}: {what}" for of, what in made - found) == []


def test_each_kind_of_mistake_is_made() -> None:
    rule = {"alert": "X", "expr": 'sum(up{job="a", b!="c"}) > 0.5 and d == 3 or e > 0', "for": "2m"}
    assert {what for what, _ in changed(rule)} == {
        "0.5 becomes 0.65", "0.5 becomes 0.384615", "for 2m becomes 240s", "for 2m becomes 60s",
        'without job="a"', 'without b!="c"',
    }  # fmt: skip
    assert {wrong["expr"].partition(" >")[0] for what, wrong in changed(rule) if what.startswith("without")} == {
        'sum(up{b!="c"})', 'sum(up{job="a"})',
    }  # fmt: skip
