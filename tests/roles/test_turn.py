"""The program that has instances restart one after the other."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests import ROOT

PROGRAM = ROOT / "roles/iris_api/files/usr/local/lib/fortress/turn.py"
SETTLE = 0.1


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("turn", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    return module


class Units:
    """Instances as systemd has them: each is asked to restart, waits for its turn, is down for a moment and serves."""

    def __init__(self, count: int) -> None:
        self.shown = {f"iris-api@{number}.service": self.serving("old") for number in range(1, count + 1)}
        self.job = dict.fromkeys(self.shown, "restart")
        self.down: set[str] = set()
        self.most_down = 0
        self.broken: set[str] = set()
        self.served_at: list[float] = []

    @staticmethod
    def serving(invocation: str, job: str = "") -> dict[str, str]:
        now = str(int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6))
        return {
            "ActiveState": "active",
            "InvocationID": invocation,
            "Job": job,
            "ActiveEnterTimestampMonotonic": now,
        }

    def restarts(self, unit: str) -> bool:
        return self.job[unit] == "restart"

    def show(self, unit: str) -> dict[str, str]:
        return dict(self.shown[unit])

    def restart(self, unit: str, wait: Callable[[], None]) -> None:
        self.shown[unit] |= {"ActiveState": "deactivating", "Job": "1"}
        wait()
        self.down.add(unit)
        self.most_down = max(self.most_down, len(self.down))
        time.sleep(0.03)
        if unit in self.broken:
            self.shown[unit] |= {"ActiveState": "activating", "InvocationID": "broken", "Job": ""}
            return
        self.down.remove(unit)
        self.job[unit] = ""
        self.shown[unit] = self.serving("new")
        self.served_at.append(time.monotonic())


def restart_all(turn: ModuleType, units: Units, path: Path, patience: float = 5) -> None:
    threads = [
        threading.Thread(
            target=units.restart,
            args=(unit, lambda unit=unit: turn.wait(unit, units, path, SETTLE, patience)),
        )
        for unit in units.shown
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_instances_that_are_all_told_to_restart_do_so_one_after_the_other(turn: ModuleType, tmp_path: Path) -> None:
    units = Units(4)
    restart_all(turn, units, tmp_path / "turn")
    assert units.most_down == 1
    assert {shown["InvocationID"] for shown in units.shown.values()} == {"new"}
    pauses = [after - before for before, after in zip(units.served_at, units.served_at[1:], strict=False)]
    assert min(pauses) >= SETTLE, "the gateway had no time to notice that the one before serves again"


def test_an_instance_that_does_not_come_back_keeps_the_others_serving_for_a_while(
    turn: ModuleType, tmp_path: Path
) -> None:
    units = Units(2)
    units.broken = {"iris-api@1.service"}
    units.restart("iris-api@1.service", lambda: turn.wait("iris-api@1.service", units, tmp_path / "turn", SETTLE))
    started = time.monotonic()
    turn.wait("iris-api@2.service", units, tmp_path / "turn", SETTLE, patience=0.3)
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("job", ["stop", ""])
def test_an_instance_that_is_stopped_does_not_wait(turn: ModuleType, tmp_path: Path, job: str) -> None:
    units = Units(2)
    (tmp_path / "turn").write_text("iris-api@1.service old")
    units.shown["iris-api@1.service"]["ActiveState"] = "activating"
    units.job["iris-api@2.service"] = job
    started = time.monotonic()
    turn.wait("iris-api@2.service", units, tmp_path / "turn", SETTLE)
    assert time.monotonic() - started < 0.2
    assert (tmp_path / "turn").read_text() == "iris-api@1.service old"


@pytest.mark.parametrize(
    ("state", "settled"),
    [
        ({"ActiveState": "inactive", "Job": ""}, True),
        ({"ActiveState": "inactive", "Job": "7"}, False),
        ({"ActiveState": "failed", "Job": ""}, True),
        ({"ActiveState": "deactivating", "Job": "7"}, False),
        ({"ActiveState": "activating", "Job": ""}, False),
        ({"ActiveState": "active", "InvocationID": "old", "Job": "7"}, False),
        ({"ActiveState": "active", "InvocationID": "new", "Job": ""}, True),
        ({"ActiveState": "active", "InvocationID": "new", "Job": "7"}, True),
        ({}, False),
    ],
)
def test_who_is_done_with_its_turn(turn: ModuleType, state: dict[str, str], settled: bool) -> None:
    assert turn.has_settled(state, "old", 0) is settled


def test_what_waits_asks_systemd_for_more_time(turn: ModuleType, tmp_path: Path) -> None:
    units = Units(2)
    (tmp_path / "turn").write_text("iris-api@1.service old")
    units.shown["iris-api@1.service"]["ActiveState"] = "activating"
    asked: list[bool] = []
    turn.wait("iris-api@2.service", units, tmp_path / "turn", SETTLE, patience=0.1, extend=lambda: asked.append(True))
    assert asked
