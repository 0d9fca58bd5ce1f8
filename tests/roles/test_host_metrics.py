"""The program that writes what a host knows of the site into a file for the node exporter."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests import ROOT
from tests.controller import render

PROGRAM = ROOT / "roles/node_exporter/files/usr/local/lib/fortress/host_metrics.py"
SHOWN = """Id=nginx.service
ControlGroup=/system.slice/nginx.service
MemoryCurrent=20480
MemoryMax=infinity
NRestarts=2

Id=iris-api@1.service
ControlGroup=/system.slice/iris-api@1.service
MemoryCurrent=[not set]
MemoryMax=536870912
NRestarts=0

Id=mtail.service
ControlGroup=
MemoryCurrent=[not set]
MemoryMax=134217728
NRestarts=7
"""


def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("host_metrics", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


metrics = program()


def values(samples: Iterator[tuple[str, dict[str, str], float]]) -> dict[tuple[str, ...], float]:
    return {(name.removeprefix("fortress_"), *labels.values()): value for name, labels, value in samples}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of a host on which one deployment went through."""
    home = tmp_path / "opt/iris-api"
    (home / "deployments/d7").mkdir(parents=True)
    deployment = {"release": "1.1.0-abc", "model": "iris-1.0.0", "environment": "A=1", "unit": "[Unit]"}
    (home / "deployments/d7/deployment.json").write_text(json.dumps(deployment))
    (home / "current").symlink_to("deployments/d7")
    lines = [
        {"event": "begun", "time": "2026-06-01T12:00:00Z"},
        {"event": "deployed", "time": "2026-06-01T12:00:09Z"},
        {"event": "begun", "time": "2026-06-02T12:00:00Z"},
        {"event": "aborted", "time": "2026-06-02T12:00:03Z"},
    ]
    (home / "history.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"event": "depl')
    return home


def test_what_is_deployed_and_since_when(tmp_path: Path, home: Path) -> None:
    found = values(metrics.deployments(tmp_path))
    assert found["deployment_info", "d7", "1.1.0-abc", "iris-1.0.0"] == 1
    assert found["last_deployment_seconds", "deployed"] == 1780315209
    assert found["last_deployment_seconds", "aborted"] == 1780401603
    assert found["last_deployment_seconds", "rolled back"] == 0, "it is there before the first one"
    assert (found["deployment_running",], found["deployments_held",]) == (0, 0)


def test_a_hold_and_a_deployment_that_runs(tmp_path: Path, home: Path) -> None:
    (home / "hold.json").write_text("{}")
    lock = tmp_path / "run/iris-deploy/lock"
    lock.parent.mkdir(parents=True)
    # Of one that was killed: nobody has locked it any more.
    lock.write_text("A deployment runs since 2026-06-01T12:00:00Z\n")
    found = values(metrics.deployments(tmp_path))
    assert (found["deployment_running",], found["deployments_held",]) == (0, 1)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert values(metrics.deployments(tmp_path))["deployment_running",] == 1


def test_a_host_without_the_api_says_nothing_of_deployments(tmp_path: Path) -> None:
    assert values(metrics.deployments(tmp_path)) == {}


def test_what_was_damaged_is_left_out(tmp_path: Path, home: Path) -> None:
    (home / "deployments/d7/deployment.json").write_text("{")
    (home / "history.jsonl").unlink()
    found = values(metrics.deployments(tmp_path))
    assert "deployment_info" not in {name for name, *_ in found}
    assert found["last_deployment_seconds", "deployed"] == 0


def test_the_age_of_the_last_backup(tmp_path: Path) -> None:
    assert values(metrics.backups(tmp_path)) == {("last_backup_seconds",): 0}
    mark = tmp_path / "var/lib/fortress/last-backup"
    mark.parent.mkdir(parents=True)
    mark.touch()
    os.utime(mark, (1780315200, 1780315200))
    assert values(metrics.backups(tmp_path)) == {("last_backup_seconds",): 1780315200}
    # Where the playbook writes it.
    assert "dest: /var/lib/fortress/last-backup\n" in (ROOT / "playbooks/backup.yml").read_text()


def process(root: Path, group: str, number: int, opened: int, allowed: str) -> None:
    """Add a process to a control group, with 30 pages of memory of which 10 are shared."""
    folder = root / "sys/fs/cgroup" / group
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cgroup.procs").open("a") as file:
        file.write(f"{number}\n")
    (root / f"proc/{number}/fd").mkdir(parents=True)
    for descriptor in range(opened):
        (root / f"proc/{number}/fd/{descriptor}").touch()
    (root / f"proc/{number}/statm").write_text("100 30 10 1 0 5 0\n")
    line = f"Max open files            {allowed}                1048576              files"
    (root / f"proc/{number}/limits").write_text(f"Limit Soft Limit Hard Limit Units\n{line}\n")


def test_memory_and_descriptors_of_the_units_that_run_and_restarts_of_all(tmp_path: Path) -> None:
    process(tmp_path, "system.slice/nginx.service", 11, 5, "1024")
    process(tmp_path, "system.slice/nginx.service", 12, 9, "20000")
    process(tmp_path, "system.slice/nginx.service/deeper", 13, 8, "unlimited")
    process(tmp_path, "system.slice/iris-api@1.service", 14, 0, "20000")
    process(tmp_path, "system.slice/iris-api@1.service", 15, 1, "20000")
    found = values(metrics.units(tmp_path, SHOWN))
    assert found == {
        ("unit_memory_bytes", "nginx.service"): 20480,
        ("unit_restarts", "nginx.service"): 2,
        # Of the process that is nearest to its limit.
        ("unit_open_descriptors", "nginx.service"): 5,
        ("unit_descriptor_limit", "nginx.service"): 1024,
        # The kernel does not account for it: what its two processes have to themselves.
        ("unit_memory_bytes", "iris-api@1.service"): 40 * os.sysconf("SC_PAGE_SIZE"),
        ("unit_open_descriptors", "iris-api@1.service"): 1,
        ("unit_descriptor_limit", "iris-api@1.service"): 20000,
        ("unit_memory_limit_bytes", "iris-api@1.service"): 536870912,
        ("unit_restarts", "iris-api@1.service"): 0,
        # It waits to be started once more.
        ("unit_restarts", "mtail.service"): 7,
    }


def test_the_file_is_replaced_in_one_step_and_everybody_may_read_it(tmp_path: Path) -> None:
    target = tmp_path / "fortress_host.prom"
    target.write_text("before\n")
    before = target.open()
    metrics.write(target, "after\n")
    assert before.read() == "before\n", "who reads it meanwhile reads the old one to its end"
    before.close()
    assert target.read_text() == "after\n"
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_it_is_what_prometheus_reads(tmp_path: Path, home: Path) -> None:
    process(tmp_path, "system.slice/nginx.service", 11, 5, "1024")
    samples = [*metrics.units(tmp_path, SHOWN), *metrics.deployments(tmp_path), *metrics.backups(tmp_path)]
    text = metrics.text([*samples, metrics.written()])
    names = re.findall(r"^# TYPE (\w+) gauge$", text, re.MULTILINE)
    assert len(names) == len(set(names)), "a metric's samples stand together"
    assert set(names) == set(metrics.HELP)
    for line in text.splitlines():
        assert line.startswith("# ") or re.fullmatch(r'\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [0-9.e+]+', line), line
    assert text.endswith("\n")


def test_it_writes_the_file_again_and_again(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, asked, pauses = tmp_path / "fortress_host.prom", [], []

    def shown(units: list[str]) -> str:
        asked.append(units)
        return SHOWN

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert 'fortress_unit_restarts{name="nginx.service"} 2.0\n' in file.read_text()
        file.unlink()
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(metrics, "ROOT", tmp_path)
    monkeypatch.setattr(metrics, "TEXT_FILE", file)
    monkeypatch.setattr(metrics, "shown", shown)
    monkeypatch.setattr(metrics.time, "sleep", pause)
    monkeypatch.setattr(metrics.sys, "argv", ["host_metrics.py", "nginx.service", "iris-api@*.service"])
    with pytest.raises(KeyboardInterrupt):
        metrics.main()
    assert pauses == 3 * [15]
    assert asked == 3 * [["nginx.service", "iris-api@*.service"]]


def test_the_node_exporter_is_told_the_same_units() -> None:
    units = ["iris-api@*.service", "nginx.service"]
    arguments = render("node_exporter", "etc/default/prometheus-node-exporter", node_exporter_units=units)
    [pattern] = re.findall(r'--collector\.systemd\.unit-include=(\S+)"$', arguments, re.MULTILINE)
    names = ("iris-api@1.service", "nginx.service", "nginxXservice", "ssh.service")
    found = [name for name in names if re.fullmatch(pattern, name)]
    assert found == ["iris-api@1.service", "nginx.service"]
    unit = render("node_exporter", "etc/systemd/system/fortress-host-metrics.service", node_exporter_units=units)
    assert f"/host_metrics.py {' '.join(units)}\n" in unit
    without = render("node_exporter", "etc/default/prometheus-node-exporter")
    assert without.splitlines()[-1] == 'ARGS="--web.listen-address=:9100 --no-collector.systemd"'
