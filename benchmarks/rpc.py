"""What gRPC would save: processor time of a request by MLServer's gRPC, its HTTP and ours, in interleaved rounds."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import environments
from benchmarks.measure import PORTS, StackError, _free_ports
from benchmarks.processes import Process, nothing_left_behind
from benchmarks.stacks import SERVERS, STACKS, Setup, gunicorn


class Way(NamedTuple):
    """How tritonclient asks a server."""

    name: str
    server: str
    kind: str


# By HTTP MLServer 1.7.1 does not take what tritonclient sends as binary tensors: 422, str is not valid UTF-8.
WAYS = (
    Way("MLServer, gRPC", "MLServer", "grpc"),
    Way("MLServer, HTTP, JSON", "MLServer", "json"),
    Way("Fortress, HTTP, binary tensors", "Fortress", "http"),
    Way("Fortress, HTTP, JSON", "Fortress", "json"),
)
# Name of the model and of the output with the classes.
NAMES = {"MLServer": ("iris", "predict"), "Fortress": ("batch", "prediction")}


class Running(NamedTuple):
    """A server that answers."""

    process: Process
    http: int
    grpc: int


def main() -> int:
    """Do as the command line says."""
    # It imports scikit-learn, which takes a second; tests of the table need none.
    from benchmarks.batches import make_bundle

    parser = argparse.ArgumentParser(prog="python -m benchmarks.rpc", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000, help="of one row in a round; of more rows a tenth")
    parser.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",")], default=[1, 1000])
    options = parser.parse_args()
    took: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, nothing_left_behind(), ExitStack() as ending:
        folder = Path(temporary)
        servers = dict(start(folder, make_bundle(folder / "bundle"), ending))
        for number in range(1, options.rounds + 1):
            for rows in options.rows:
                for way in random.sample(WAYS, len(WAYS)):
                    requests = options.requests if rows == 1 else max(1, options.requests // 10)
                    found = ask(way, servers[way.server], rows, requests)
                    took.setdefault((way.name, rows), []).append(found)
                    shown = f"server {1e6 * found[0]:8.0f}, client {1e6 * found[1]:8.0f}"
                    print(f"{number:3} {rows:6} rows, {way.name:32} us: {shown}", flush=True)
    print("\n" + "\n".join(table(took, options.rows)))
    return 0


def start(folder: Path, bundle: Path, ending: ExitStack) -> Iterator[tuple[str, Running]]:
    """Start one server of each kind; yield its name, and where it answers, once it is ready."""
    from benchmarks.batches import LIMITS, wait_until_ready

    for name, environment in (("Fortress", "app"), ("MLServer", "mlserver")):
        own = folder / environment
        own.mkdir()
        setup = Setup(environments.python(environment), bundle, own, _free_ports(PORTS))
        server = (gunicorn(setup, "onnx") if name == "Fortress" else STACKS["mlserver"].servers(setup))[0]
        settings = own / "model-settings.json"
        if settings.exists():
            # One request at a time has nothing to wait for.
            known = json.loads(settings.read_text())
            settings.write_text(json.dumps(known | {"max_batch_size": 0, "max_batch_time": 0}))
        process = Process(server.command, server.environ(own) | LIMITS, own, own / "log")
        ending.callback(process.end)
        wait_until_ready(process, server.port, f"/v2/models/{NAMES[name][0]}/ready")
        yield name, Running(process, server.port, setup.ports[1])


def ask(way: Way, server: Running, rows: int, requests: int) -> tuple[float, float]:
    """Return the processor seconds of a request, of the server and of the client."""
    model, output = NAMES[way.server]
    port = server.grpc if way.kind == "grpc" else server.http
    command = [environments.python("mlserver"), SERVERS / "triton.py", way.kind, port, model, output, rows, requests]
    with subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        assert client.stdin and client.stdout and client.stderr
        if client.stdout.readline().strip() != "ready":
            raise StackError(f"{way.name}: {client.stderr.read()[-2000:]}")
        before = server.process.cpu_seconds()
        client.stdin.write("go\n")
        client.stdin.flush()
        answer = client.stdout.readline()
        if not answer:
            raise StackError(f"{way.name}: {client.stderr.read()[-2000:]}")
        return (server.process.cpu_seconds() - before) / requests, json.loads(answer) / requests


def table(took: dict[tuple[str, int], list[tuple[float, float]]], sizes: list[int]) -> Iterator[str]:
    """Yield the medians as a table."""
    yield "| rows | way | server, us | client, us | both |"
    yield "|---|---|---|---|---|"
    for rows in sizes:
        for way in WAYS:
            server, client = (1e6 * median(part) for part in zip(*took[way.name, rows], strict=True))
            yield f"| {rows:,} | {way.name} | {server:,.0f} | {client:,.0f} | {server + client:,.0f} |"


if __name__ == "__main__":
    sys.exit(main())
