"""`make silence`: what amtool is told, and what is not told it."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tools import silence
from tools.silence import command


def asked(**given: str) -> argparse.Namespace:
    return argparse.Namespace(**dict.fromkeys(["alert", "host", "duration", "why", "end"]) | given)


def told(**given: str) -> list[str]:
    url, *rest = shlex.split(command(asked(**given), 9393, "rosa@desk"))[1:]
    assert url == "--alertmanager.url=http://127.0.0.1:9393"
    return rest


def test_alerts_of_a_name_on_a_host_are_silent_for_a_time_and_a_reason() -> None:
    words = told(alert="DiskAlmostFull", host="api2", duration="2h", why="new disk; don't worry $(id)")
    assert words[:2] == ["silence", "add"]
    assert words[2:] == [
        "--author=rosa@desk", "--duration=120m", "--comment=new disk; don't worry $(id)", "--",
        "alertname=DiskAlmostFull", "host=api2",
    ]  # fmt: skip


def test_a_day_is_told_in_minutes_which_every_version_knows() -> None:
    assert "--duration=1440m" in told(host="api2", duration="1d", why="new memory")


def test_a_silence_is_ended_by_its_id_and_all_are_listed() -> None:
    assert told(end="8d7f") == ["silence", "expire", "8d7f"]
    assert told() == ["silence", "query"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"duration": "2h", "why": "x"}, "Which alerts"),
        ({"alert": "X", "why": "x"}, "For how long"),
        ({"alert": "X", "duration": "2h"}, "Why?"),
        ({"alert": "X", "duration": "15d", "why": "x"}, "FOR=15d is no time from 1m to 14d"),
        ({"alert": "X", "duration": "0h", "why": "x"}, "FOR=0h is no time"),
        ({"alert": "X", "duration": "2", "why": "x"}, "FOR=2 is no time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing_is_asked_for(given: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("?", "[?]")):
        command(asked(**given), 9093, "rosa@desk")


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Two monitoring hosts, which are this machine, of which one has Alertmanager on another port."""
    here = {"ansible_connection": "local"}
    hosts = {"api1": here, "mon1": here, "mon2": here | {"fortress_alertmanager_port": 19093}}
    groups = {"api": {"hosts": {"api1": None}}, "monitoring": {"hosts": {"mon1": None, "mon2": None}}}
    file = tmp_path / "hosts.yml"
    file.write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}))
    return file


def test_each_monitoring_host_is_asked_at_its_own_port(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: dict[str, list[str]] = {}
    monkeypatch.setattr(silence, "side_by_side", lambda told: commands.update(told) or 0)
    assert silence.main(["-i", str(inventory), "--host", "api1", "--for", "1h", "--why", "x"]) == 0
    urls = {name: re.findall(r"http://127.0.0.1:\d+", words[-1]) for name, words in commands.items()}
    assert urls == {"mon1": ["http://127.0.0.1:9093"], "mon2": ["http://127.0.0.1:19093"]}


@pytest.mark.parametrize("wrong", ["typo", "api"])
def test_a_host_that_is_not_there_or_a_group_is_refused(
    inventory: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """Alertmanager would take it, and keep nothing back."""
    monkeypatch.setattr(silence, "side_by_side", lambda told: 0)
    with pytest.raises(SystemExit, match=f"has no host {wrong}: it has api1, mon1, mon2"):
        silence.main(["-i", str(inventory), "--host", wrong, "--for", "1h", "--why", "x"])
