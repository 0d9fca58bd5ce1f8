"""`make silence`: what amtool is told, and what is not told it."""

from __future__ import annotations

import argparse
import shlex

import pytest

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
