"""program: a program is run where the task is, and what it said is there as a command's is."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.controller import Run


def outcome(play: Run, *options: str, **task: Any) -> dict[str, Any]:
    """Return what a task of this module returns."""
    tasks: list[dict[str, object]] = [
        {"name": "Run", "register": "ran", "failed_when": False, "changed_when": False} | task,
        {"name": "Print", "ansible.builtin.debug": {"msg": "<{{ ran | to_json | b64encode }}>"}},
    ]
    done = play(tasks, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    text = "".join(done.stdout.split("<", 1)[1].split(">", 1)[0].split())
    found: dict[str, Any] = json.loads(base64.b64decode(text))
    return found


def test_a_program_has_its_arguments_as_they_are_and_what_it_reads(play: Run) -> None:
    ran = outcome(play, program={"argv": ["sh", "-c", 'cat; echo "$1" >&2; exit 3', "sh", "a 'b' $c"], "stdin": "ü\nx"})
    assert (ran["rc"], ran["stdout"], ran["stderr"]) == (3, "ü\nx", "a 'b' $c")
    assert ran["msg"] == "non-zero return code"


def test_a_program_that_is_not_there_says_so(play: Run) -> None:
    ran = outcome(play, program={"argv": ["/no/such/program"]})
    assert ran["rc"] == 127
    assert "not found" in ran["stderr"]


@pytest.mark.parametrize("own", [None, False])
def test_check_mode_runs_it_only_where_the_task_says_so(play: Run, own: bool | None) -> None:
    task: dict[str, Any] = {"program": {"argv": ["echo", "it ran"]}} | ({} if own is None else {"check_mode": own})
    ran = outcome(play, "--check", **task)
    assert ran.get("skipped", False) == (own is None)
    assert ("it ran" in ran.get("stdout", "")) == (own is False)
