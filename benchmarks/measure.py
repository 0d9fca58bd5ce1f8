"""One turn of one stack: start it, load it, read what it took, end it."""

from __future__ import annotations

import http.client
import re
import socket
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ROOT, environments, front, load
from benchmarks.inputs import Case
from benchmarks.processes import Process, machine_seconds, nothing_left_behind
from benchmarks.stacks import INSTANCES, Setup, Stack

WARM_UP_SECONDS = 1
START_SECONDS = 180
DISTURBED = 0.15
PORTS = 2 * INSTANCES + 6


class StackError(Exception):
    """A stack does not do what it should; the message says what it said."""


@dataclass(frozen=True)
class Loaded:
    """What a stack did under a number of connections."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    servers_us: float
    nginx_us: float
    wrk_us: float
    """Processor time a request, of each."""
    others: float
    """Share of the machine's processor time that went to others meanwhile: the noise of the measurement."""
    errors: dict[str, int]
    example: str

    @property
    def disturbed(self) -> bool:
        """Whether others took so much of the machine that the numbers say little."""
        return self.others > DISTURBED


@dataclass(frozen=True)
class Turn:
    """What was measured in one turn."""

    round: int
    stack: str
    model: str
    start_seconds: float
    pss_mb: float
    """Memory of one of the instances after the load, whether they are processes of their own or workers of one."""
    loads: dict[int, Loaded]

    @property
    def disturbed(self) -> bool:
        """Whether one of its loads was."""
        return any(loaded.disturbed for loaded in self.loads.values())

    @property
    def errors(self) -> dict[str, int]:
        """What went wrong, over all loads."""
        return {f"{name} at {n}": count for n, loaded in self.loads.items() for name, count in loaded.errors.items()}


def turn(number: int, stack: Stack, model: str, cases: list[Case], connections: list[int], seconds: int) -> Turn:
    """Measure a stack once."""
    python = environments.python(stack.environment)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, nothing_left_behind(), ExitStack() as ending:
        folder = Path(temporary)
        setup = Setup(python, ROOT / "models" / model / "1.0.0", folder, _free_ports(PORTS))
        expected = [(stack.body(case), stack.constant or case) for case in cases]
        servers = stack.servers(setup)
        processes: list[Process] = []
        start_seconds = 0.0
        for group in (servers[:1], servers[1:]):
            started = time.monotonic()
            for server in group:
                log = folder / f"{server.port}.log"
                process = Process(server.command, server.environ(folder), folder, log)
                ending.callback(process.end)
                processes.append(process)
            for server, process in zip(group, processes[-len(group) :], strict=False):
                _wait_for_answer(stack, process, server.port, *expected[0])
            # The first starts alone: what an instance takes that comes back after a failure.
            start_seconds = start_seconds or time.monotonic() - started
        https, plain = setup.ports[-2:]
        upstreams = [f"127.0.0.1:{server.port}" for server in servers]
        nginx = front.start(folder / "nginx", (https, plain), upstreams, stack.path, naive=stack.naive_front)
        ending.callback(nginx.end)
        _wait_for_port(nginx, https)
        target = load.Target(f"https://127.0.0.1:{https}{stack.path}", front.AUTHORIZATION, stack.pattern)
        loads = {
            count: _load(target, expected, folder / f"load-{count}", count, seconds, processes, nginx)
            for count in connections
        }
        pss_mb = sum(process.pss_bytes() for process in processes) / INSTANCES / 1e6
        if any(process.ended for process in [*processes, nginx]):
            raise StackError(f"{stack.name}: a server ended under load")
        return Turn(number, stack.name, model, start_seconds, pss_mb, loads)


def _load(
    target: load.Target,
    cases: list[tuple[str, Case]],
    folder: Path,
    connections: int,
    seconds: int,
    servers: list[Process],
    nginx: Process,
) -> Loaded:
    load.write_cases(cases, folder, connections)
    warm_up = load.run(target, folder, connections, WARM_UP_SECONDS)
    servers_before, nginx_before = sum(server.cpu_seconds() for server in servers), nginx.cpu_seconds()
    busy_before, all_before = machine_seconds()
    seen = load.run(target, folder, connections, seconds)
    servers_took = sum(server.cpu_seconds() for server in servers) - servers_before
    nginx_took = nginx.cpu_seconds() - nginx_before
    busy_after, all_after = machine_seconds()
    ours = servers_took + nginx_took + seen.cpu_seconds
    requests = max(seen.requests, 1)
    return Loaded(
        requests_per_second=seen.requests / seen.seconds,
        p50_ms=seen.p50_ms,
        p99_ms=seen.p99_ms,
        servers_us=servers_took / requests * 1e6,
        nginx_us=nginx_took / requests * 1e6,
        wrk_us=seen.cpu_seconds / requests * 1e6,
        others=max(busy_after - busy_before - ours, 0) / (all_after - all_before),
        errors={name: warm_up.errors.get(name, 0) + seen.errors.get(name, 0) for name in warm_up.errors | seen.errors},
        example=seen.example or warm_up.example,
    )


def _wait_for_answer(stack: Stack, process: Process, port: int, body: str, case: Case) -> None:
    """Return as soon as a server gives the right answer."""
    deadline = time.monotonic() + START_SECONDS
    said = "nothing"
    while time.monotonic() < deadline and not process.ended:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", stack.path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            said = f"{response.status} {response.read().decode(errors='replace')}"
            if response.status == 200 and is_right(stack.pattern, said, case):
                return
        except (OSError, http.client.HTTPException) as error:
            said = repr(error)
        finally:
            connection.close()
        time.sleep(0.01)
    log = process.log.read_text(errors="replace")[-2000:]
    raise StackError(f"{stack.name} did not give the right answer on its port, but {said}\n{log}")


def is_right(pattern: str, answer: str, case: Case) -> bool:
    """Do for one answer what load.lua does for all."""
    found = re.search(pattern.replace("%", "\\"), answer)
    if not found:
        return False
    *prediction, first, second, third = found.groups()
    try:
        values = [float(first), float(second), float(third)]
    except ValueError:
        return False
    near = all(abs(said - due) <= 1e-6 for said, due in zip(values, case.probabilities, strict=True))
    return near and prediction in ([], [str(case.prediction)])


def _wait_for_port(process: Process, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and not process.ended:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise StackError(f"nginx does not listen\n{process.log.read_text()}")


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
