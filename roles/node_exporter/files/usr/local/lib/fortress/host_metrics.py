#!/usr/bin/python3
"""Write what the host knows of the site into a file that the node exporter reads: units, deployments, the last backup.

The file is replaced in one step, so that no scrape reads half of it. What can't be found out is left out; that it was
written at all is `fortress_host_metrics_written_seconds`, on whose age an alert can ask.

It runs as a service and not by a timer: to start Python in a sandbox would take six times the processor of the work.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

ROOT = Path("/")
TEXT_FILE = Path("/var/lib/prometheus/node-exporter/fortress_host.prom")
# As often as Prometheus reads it.
PAUSE_SECONDS = 15
GAUGES = {
    "fortress_unit_memory_bytes": "MemoryCurrent",
    "fortress_unit_memory_limit_bytes": "MemoryMax",
    "fortress_unit_restarts": "NRestarts",
}
PROPERTIES = ("Id", "ControlGroup", *GAUGES.values())
# Where systemd says that there is no limit, or that it does not know.
NONE = ("infinity", "[not set]", "", str(2**64 - 1))

Sample = tuple[str, dict[str, str], float]
"""Name of a metric, labels, value."""

HELP = {
    "fortress_unit_memory_bytes": "Memory of a unit and all its processes.",
    "fortress_unit_memory_limit_bytes": "Beyond which the kernel ends a process of the unit.",
    "fortress_unit_open_descriptors": "Open files and sockets of that process of a unit which is nearest to its limit.",
    "fortress_unit_descriptor_limit": "How many that process may have.",
    "fortress_unit_restarts": "How often systemd has restarted a unit by itself since somebody started it.",
    "fortress_deployment_info": "The deployment that succeeded last, and of what it consists.",
    "fortress_last_deployment_seconds": "When something last happened to the deployments, by what it was.",
    "fortress_deployment_running": "Whether a deployment or a rollback runs.",
    "fortress_deployments_held": "Whether an operator holds deployments off (make hold).",
    "fortress_last_backup_seconds": "When the last backup of this host was written (make backup).",
    "fortress_host_metrics_written_seconds": "When this file was written.",
}


def main() -> None:
    """Write until it is ended; the arguments are the units, of which a pattern may name several."""
    while True:
        write(TEXT_FILE, text([*units(ROOT, shown(sys.argv[1:])), *deployments(ROOT), *backups(ROOT), written()]))
        time.sleep(PAUSE_SECONDS)


def shown(patterns: Sequence[str]) -> str:
    """Return what systemd says of the units that are loaded, a block each."""
    command = ["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *patterns]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout if patterns else ""


def units(root: Path, said: str) -> Iterator[Sample]:
    """Yield the restarts of each unit, and memory and descriptors of those that run.

    Args:
        root: below which /proc and /sys are.
        said: what `systemctl show` has printed, a block for each unit.
    """
    for block in said.split("\n\n"):
        found = {name: value for name, _, value in (line.partition("=") for line in block.splitlines())}
        runs, labels = bool(found.get("ControlGroup")), {"name": found["Id"]}
        for name, key in GAUGES.items():
            # One that ends as soon as it has started mostly waits to be started again, and then has no control group.
            if not runs and key != "NRestarts":
                continue
            if found.get(key, "") not in NONE:
                yield name, labels, float(found[key])
            elif key == "MemoryCurrent":
                # Where the kernel does not account for the memory of a unit, as in some containers.
                yield name, labels, resident(root, found["ControlGroup"])
        if runs and (fullest := descriptors(root, found["ControlGroup"])):
            yield "fortress_unit_open_descriptors", labels, fullest[0]
            yield "fortress_unit_descriptor_limit", labels, fullest[1]


def descriptors(root: Path, group: str) -> tuple[int, int] | None:
    """Return how many descriptors are open and allowed in that process of a control group which has the fewest left."""
    best: tuple[int, int] | None = None
    for process in processes(root, group):
        try:
            count = len(os.listdir(root / "proc" / process / "fd"))
            limits = (root / "proc" / process / "limits").read_text()
            allowed = int(limits.partition("Max open files")[2].split()[0])
        except (OSError, ValueError, IndexError):
            continue  # It has ended meanwhile, or has no limit.
        if best is None or count * best[1] > best[0] * allowed:
            best = count, allowed
    return best


def resident(root: Path, group: str) -> float:
    """Return the bytes of memory that the processes of a control group have to themselves."""
    found = 0
    for process in processes(root, group):
        try:
            pages, shared = map(int, (root / "proc" / process / "statm").read_text().split()[1:3])
        except (OSError, ValueError):
            continue
        found += (pages - shared) * os.sysconf("SC_PAGE_SIZE")
    return float(found)


def processes(root: Path, group: str) -> list[str]:
    """Return the processes of a control group and of those below it, by whichever hierarchy systemd keeps them in."""
    for folder in ("sys/fs/cgroup", "sys/fs/cgroup/systemd", "sys/fs/cgroup/unified"):
        files = (root / folder / group.lstrip("/")).glob("**/cgroup.procs")
        if found := [process for file in files for process in lines(file)]:
            return found
    return []


def deployments(root: Path) -> Iterator[Sample]:
    """Yield what is deployed, when that happened, and whether deployments run or are held off: see app/iris_deploy."""
    home = root / "opt/iris-api"
    if not home.exists():
        return
    try:
        deployment = json.loads((home / "current/deployment.json").read_text())
        labels = {"deployment": os.readlink(home / "current").rpartition("/")[2]}
        yield "fortress_deployment_info", labels | {key: str(deployment[key]) for key in ("release", "model")}, 1
    except (OSError, ValueError, KeyError):
        pass
    last: dict[str, float] = {}
    for line in lines(home / "history.jsonl"):
        try:
            event = json.loads(line)
            last[str(event["event"])] = seconds(event["time"])
        except (ValueError, KeyError, TypeError):
            continue  # A power cut left it unfinished.
    # All that there can be, so that no series begins with the event that it is about.
    for name in ("begun", "deployed", "rolled back", "aborted"):
        yield "fortress_last_deployment_seconds", {"event": name}, last.get(name, 0)
    yield "fortress_deployment_running", {}, is_locked(root / "run/iris-deploy/lock")
    yield "fortress_deployments_held", {}, (home / "hold.json").exists()


def backups(root: Path) -> Iterator[Sample]:
    """Yield when the last backup was written; 0 where there was none."""
    try:
        yield "fortress_last_backup_seconds", {}, (root / "var/lib/fortress/last-backup").stat().st_mtime
    except OSError:
        yield "fortress_last_backup_seconds", {}, 0


def written() -> Sample:
    """Return the time of this file."""
    return "fortress_host_metrics_written_seconds", {}, time.time()


def lines(path: Path) -> list[str]:
    """Return the lines of a file, none where it can't be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def is_locked(path: Path) -> bool:
    """Return whether another process has locked a file."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def seconds(moment: str) -> float:
    """Return a time as it stands in the history (2026-06-01T12:00:00Z) in seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()


def text(samples: Sequence[Sample]) -> str:
    """Return samples in Prometheus' text format, those of a metric together."""
    found: list[str] = []
    for name in dict.fromkeys(name for name, _, _ in samples):
        found += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
        for labels, value in [sample[1:] for sample in samples if sample[0] == name]:
            inner = ",".join(f"{key}={json.dumps(content, ensure_ascii=False)}" for key, content in labels.items())
            found.append(f"{name}{{{inner}}} {float(value)}" if inner else f"{name} {float(value)}")
    return "\n".join([*found, ""])


def write(path: Path, content: str) -> None:
    """Replace a file in one step. The node exporter reads whatever ends in .prom, so its draft does not."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(content)
    draft.chmod(0o644)
    draft.replace(path)


if __name__ == "__main__":
    main()
