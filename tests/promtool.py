"""What promtool is given: the tests of tests/rules, each with the rules alone that it asks for.

It would evaluate all of a file's rules at each step of each test: five times the processor's time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests import ROOT

TESTS = ROOT / "tests" / "rules"
# It runs tests one after the other, and a third of their time would go into collecting their garbage at once.
SETTINGS = {"GOMAXPROCS": "1", "GOGC": "400"}


def parse(text: str) -> Any:
    """Read YAML with every value as the text it is: to YAML, the series 0x12 is the number 18."""
    return yaml.load(text, getattr(yaml, "CBaseLoader", yaml.BaseLoader))


def dump(content: Any) -> str:
    """Return YAML, quickly."""
    return str(yaml.dump(content, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)))


def needs(expressions: list[str], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records that expressions go by, and those that these go by, in their order."""
    found: list[dict[str, Any]] = []
    text = " ".join(expressions)
    for rule in reversed([other for other in others if "record" in other]):
        if re.search(rf"(?<![\w:]){re.escape(rule['record'])}(?![\w:])", text):
            found.insert(0, rule)
            text += f" {rule['expr']}"
    return found


def write_tests(folder: Path, name: str, rules: str) -> list[str]:
    """Write the tests of a file of rules, by its name and its text, into a folder; return the files to test."""
    told, groups = parse((TESTS / name).read_text(encoding="utf-8")), parse(rules)["groups"]
    assert [Path(file).name for file in told["rule_files"]] == [name]
    every = [rule for group in groups for rule in group["rules"]]
    files = []
    for number, test in enumerate(told["tests"]):
        asked = {each["alertname"] for each in test.get("alert_rule_test", [])}
        found = [rule for rule in every if rule.get("alert") in asked]
        assert {rule["alert"] for rule in found} == asked
        queries = test.get("promql_expr_test", [])
        wanted = [*needs([each["expr"] for each in (*found, *queries)], every), *found]
        alone = [group | {"rules": [rule for rule in group["rules"] if rule in wanted]} for group in groups]
        for sample in [sample for each in queries for sample in each.get("exp_samples", [])]:
            sample["value"] = float(sample["value"])
        file = f"{Path(name).stem}-{number}"
        (folder / f"{file}.rules").write_text(dump({"groups": alone}))
        (folder / f"{file}.yml").write_text(dump(told | {"rule_files": [f"{file}.rules"], "tests": [test]}))
        files.append(f"{file}.yml")
    return files
