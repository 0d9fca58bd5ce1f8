"""Whether there is memory for a deployment: what an instance takes, what its unit allows, and what the host has."""

from __future__ import annotations

import json
import math
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import Problem, commands
from .machine import Machine
from .store import Deployment, Store

MB = 10**6
# systemd's K, M, G, T are powers of 1024.
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class UnknownError(Exception):
    """Nobody knows what a deployment takes; the message says why."""


@dataclass(frozen=True)
class Need:
    """What an instance takes, as it was measured when its model was packed."""

    engine: str
    """The one that will answer."""
    bytes: float
    by_engine: dict[str, float]
    """The same for each engine that could."""


@dataclass(frozen=True)
class Available:
    """What a host has, in bytes."""

    total: int
    free: int
    """What could be had without taking it from anybody."""
    held: int
    """What the instances have now, and give back when they are replaced."""

    @classmethod
    def here(cls, proc: Path = Path("/proc")) -> Available:
        """Measure this host."""
        lines = (line.split() for line in (proc / "meminfo").read_text().splitlines())
        known = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
        return cls(known["MemTotal"], known["MemAvailable"], _held(proc))


def ask_need(machine: Machine, store: Store, deployment: Deployment) -> Need:
    """Return what an instance of a deployment takes, as its application says; raise UnknownError if it does not."""
    release = store.home / "releases" / deployment.release
    lines = (line.split("=", 1) for line in deployment.environment.splitlines() if line.startswith("IRIS_API_"))
    settings = {line[0]: line[-1] for line in lines} | {
        "IRIS_API_MODEL_DIR": str(store.home / "models" / deployment.model)
    }
    try:
        done = machine.run(commands.what_it_takes(release, settings))
    except (OSError, LookupError, subprocess.SubprocessError) as error:
        raise UnknownError(f"{deployment.release} could not be asked what it takes ({error}).") from None
    try:
        told = json.loads(done.stdout)
        engine, by_engine = str(told["engine"]), {name: float(mb) * MB for name, mb in told["by_engine"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        why = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UnknownError(f"{deployment.release} does not tell what it takes, but: {why}") from None
    if engine not in by_engine:
        raise UnknownError(f"{deployment.model} was packed before costs were measured. `iris-model pack` it again.")
    return Need(engine, by_engine[engine], by_engine)


def require(need: Need, deployment: Deployment, instances: int, available: Available) -> None:
    """Raise Problem where the kernel would end instances of a deployment: by their own bound, or by the host's."""
    takes = f"An instance of {deployment.model} takes {_mb(need.bytes)} by {need.engine}"
    limit = memory_max(deployment.unit, available.total)
    others = {engine: size for engine, size in need.by_engine.items() if size < need.bytes}
    if limit is not None and need.bytes > limit:
        fits = [engine for engine, size in others.items() if size <= limit]
        other = f", or iris_api_engine: {fits[0]} ({_mb(need.by_engine[fits[0]])})" if fits else ""
        raise Problem(
            f"{takes}, but its unit allows {_mb(limit)}: the kernel would end it. Nothing was touched. "
            f"Set iris_api_memory_max: {_enough(need.bytes)}{other}."
        )
    everyone = (instances + 1) * need.bytes
    has = available.free + available.held
    if everyone > has or need.bytes > available.free:
        fit = int(has / need.bytes) - 1
        fewer = f"fortress_api_instances: {fit}, " if 1 <= fit < instances else ""
        smaller = [
            engine for engine, size in others.items() if (instances + 1) * size <= has and size <= available.free
        ]
        other = f"iris_api_engine: {smaller[0]} ({_mb(need.by_engine[smaller[0]])} each), " if smaller else ""
        raise Problem(
            f"{takes}; {instances} of them and the candidate that is tried beside them take {_mb(everyone)}, but this "
            f"host has {_mb(has)} for them, of which {_mb(available.free)} are free now. Nothing was touched. "
            f"Set {fewer}{other}or give the host more memory; iris_api_check_memory: false deploys all the same."
        )


def memory_max(unit: str, total: int) -> int | None:
    """Return what MemoryMax of a unit's text allows, in bytes, on a host with so many; None where it bounds nothing."""
    given = re.findall(r"^\s*MemoryMax\s*=\s*(\S*)\s*$", unit, re.MULTILINE)
    value = given[-1] if given else ""
    if found := re.fullmatch(r"([0-9.]+)([KMGT]?)", value):
        return int(float(found[1]) * UNITS[found[2]])
    if found := re.fullmatch(r"([0-9.]+)%", value):
        return int(total * float(found[1]) / 100)
    return None


def _held(proc: Path) -> int:
    """Return what the processes of the instances have, in bytes; what several share counts once."""
    held = 0
    for process in proc.glob("[0-9]*"):
        try:
            if re.search(r"/iris-api@\d+\.service$", (process / "cgroup").read_text(), re.MULTILINE):
                found = re.search(r"^Pss:\s+(\d+) kB", (process / "smaps_rollup").read_text(), re.MULTILINE)
                held += int(found[1]) * 1024 if found else 0
        except OSError:
            # It has just ended.
            continue
    return held


def _mb(size: float) -> str:
    return f"{size / MB:.0f} MB"


def _enough(size: float) -> str:
    """Return a setting with a tenth to spare."""
    return f"{math.ceil(size * 1.1 / UNITS['M'] / 10) * 10}M"
