"""Load by wrk, with every answer checked (load.lua)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import environments
from benchmarks.inputs import Case

SCRIPT = Path(__file__).with_name("load.lua")
TIMEOUT_SECONDS = 5
# The counters of what is no answer or not the right one.
ERRORS = ("wrong", "connect", "read", "write", "timeout", "unchecked")


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]
    """What went wrong and how often; empty where all is well."""
    example: str
    """One of the wrong answers."""
    cpu_seconds: float
    """What wrk itself took."""


@dataclass(frozen=True)
class Target:
    """Where to send requests, and how answers read."""

    url: str
    authorization: str
    pattern: str


def write_cases(cases: list[tuple[str, Case]], folder: Path, threads: int) -> None:
    """Deal bodies and the answers due to them out to the threads of wrk."""
    folder.mkdir()
    lines = [
        "\t".join([body, str(case.prediction), *(repr(value) for value in case.probabilities)]) for body, case in cases
    ]
    for thread in range(threads):
        (folder / str(thread)).write_text("\n".join(lines[thread::threads]) + "\n")


def run(
    target: Target,
    folder: Path,
    connections: int,
    seconds: int,
    pause_ms: int = 0,
    started: Callable[[int], object] = lambda _: None,
) -> Load:
    """Send as much as the connections carry, for some seconds; with a pause, each of them waits before a request.

    `started` is told the id of the process that does it.
    """
    program = environments.debian() / "usr" / "bin" / "wrk"
    command = [
        str(program),
        f"--threads={connections}",
        f"--connections={connections}",
        f"--duration={seconds}s",
        f"--timeout={TIMEOUT_SECONDS}s",
        f"--script={SCRIPT}",
        target.url,
        *("--", str(folder), target.pattern, *([str(pause_ms)] if pause_ms else [])),
    ]
    # Everybody on the machine may read a program's arguments, nobody else its environment.
    environment = environments.debian_environ() | {"AUTHORIZATION": target.authorization}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        started(process.pid)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode != 0 or "\n{" not in output:
        raise RuntimeError(f"wrk failed:\n{output}")
    return parse(output, usage.ru_utime + usage.ru_stime)


def parse(output: str, cpu_seconds: float) -> Load:
    """Read what load.lua printed behind wrk's own report."""
    summary, _, example = output.rpartition("\n{")[2].partition("\n")
    said = json.loads("{" + summary)
    said["unchecked"] = said["requests"] - said["checked"]
    return Load(
        requests=said["requests"],
        seconds=said["seconds"],
        p50_ms=said["p50_ms"],
        p99_ms=said["p99_ms"],
        errors={name: said[name] for name in ERRORS if said[name]},
        example=example.strip(),
        cpu_seconds=cpu_seconds,
    )
