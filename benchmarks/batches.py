"""Large batches: one instance beside MLServer's and the bare session, asked directly, in interleaved rounds."""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import math
import multiprocessing
import random
import secrets
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import PAGE, environments, front
from benchmarks.measure import PORTS, StackError, _free_ports, _wait_for_port
from benchmarks.processes import Process, nothing_left_behind
from benchmarks.stacks import APPLICATION, STACKS, Setup, gunicorn
from tools import pages

sys.path.insert(0, str(APPLICATION))
from iris_api.bundle.files import read_manifest  # this tree's own, installed or not
from iris_api.packing.pack import About, Sample, dump, pack

BEGIN = "<!-- written by python -m benchmarks.batches --docs -->\n"
BEGIN_BESIDE = "<!-- written by python -m benchmarks.batches --beside 10 --rounds 3 --docs -->\n"
MODEL, FEATURES = "batch", 10
NAMES = [f"feature_{number}" for number in range(FEATURES)]
START_SECONDS = 60
Table = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Dialect:
    """A way to ask a server for the classes of rows."""

    name: str
    server: str
    path: str
    encode: Callable[[Table], tuple[bytes, dict[str, str]]]
    decode: Callable[[bytes, dict[str, str]], Labels]


def main() -> int:
    """Do as the command line says; 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batches", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20, help="of each kind in a round, each with rows of its own")
    parser.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",")], default=[1000, 10_000])
    parser.add_argument("--without-mlserver", action="store_true")
    parser.add_argument("--docs", action="store_true", help="write the table in docs/")
    parser.add_argument("--beside", type=int, default=0, metavar="SECONDS", help="single rows beside batches instead")
    options = parser.parse_args()
    if options.beside:
        return beside(options.rounds, options.beside, docs=options.docs)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, nothing_left_behind(), ExitStack() as ending:
        folder = Path(temporary)
        bundle = make_bundle(folder / "bundle")
        servers = dict(start_servers(folder, bundle, ending, mlserver=not options.without_mlserver))
        bare = BareSession(bundle)
        dialects = [each for each in DIALECTS if each.server in servers]
        seconds: dict[tuple[str, int], list[float]] = {}
        cpu: dict[tuple[str, int], list[float]] = {}
        for number in range(1, options.rounds + 1):
            generator = np.random.default_rng(secrets.randbits(32))
            for rows in options.rows:
                tables = [generator.normal(size=(rows, FEATURES)) for _ in range(options.requests)]
                expected = [bare(table) for table in tables]
                took = {BARE: median(timed(bare, table) for table in tables)}
                for dialect in random.sample(dialects, len(dialects)):
                    port, process = servers[dialect.server]
                    before = process.running_seconds()
                    took[dialect.name] = median(ask(dialect, port, tables, expected))
                    # One more opened the connection.
                    used = (process.running_seconds() - before) / (len(tables) + 1)
                    cpu.setdefault((dialect.name, rows), []).append(used)
                for name, each in took.items():
                    seconds.setdefault((name, rows), []).append(each)
                said = ", ".join(f"{name} {1e3 * took[name]:.2f}" for name in sorted(took))
                print(f"{number:3} {rows:6} rows, ms: {said}", flush=True)
    text = "\n".join(table(seconds, cpu, options.rows))
    print(f"\n{text}")
    if options.docs:
        pages.put(PAGE, BEGIN, text)
    return 0


def make_bundle(folder: Path) -> Path:
    """Pack a classifier of ten numbers, with its proof for ONNX Runtime."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(2000, FEATURES))
    targets = (rows @ generator.normal(size=(FEATURES, 3))).argmax(axis=1)
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, targets)
    about = About(name=MODEL, version="1.0.0", description="Ten numbers, three classes")
    sample = Sample(NAMES, rows, targets.tolist())
    pack(folder, about, "model.joblib", dump(estimator), sample)
    return folder


def start_servers(
    folder: Path, bundle: Path, ending: ExitStack, *, mlserver: bool
) -> Iterator[tuple[str, tuple[int, Process]]]:
    """Start one server of each kind; yield its name, its port and its process once it is ready."""
    stacks = {"Fortress": "app", **({"MLServer": "mlserver"} if mlserver else {})}
    for name, environment in stacks.items():
        own = folder / environment
        own.mkdir()
        setup = Setup(environments.python(environment), bundle, own, _free_ports(PORTS))
        servers = gunicorn(setup, "onnx") if name == "Fortress" else STACKS["mlserver"].servers(setup)
        server = servers[0]
        environ = server.environ(own) | (LIMITS if name == "Fortress" else {})
        process = Process(server.command, environ, own, own / "log")
        ending.callback(process.end)
        path = "/v2/health/ready" if name == "Fortress" else "/v2/models/iris/ready"
        wait_until_ready(process, server.port, path)
        yield name, (server.port, process)


def wait_until_ready(process: Process, port: int, path: str) -> None:
    """Return once a server answers 200."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and not process.ended:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise StackError(f"{path} on port {port} was not answered 200\n{process.log.read_text()[-2000:]}")


class BareSession:
    """The model without any server: what a request can't be quicker than."""

    def __init__(self, bundle: Path) -> None:
        about = read_manifest(bundle).onnx
        assert about, "the model was not proven for ONNX Runtime"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._outputs = about.outputs
        self._session = onnxruntime.InferenceSession(
            bundle / about.artifact, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, rows: Table) -> Labels:
        """Return the classes of rows."""
        labels: Labels = self._session.run(self._outputs, {"input": rows})[0]
        return labels


def timed(call: Callable[[Table], object], rows: Table) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    call(rows)
    return time.perf_counter() - started


def ask(dialect: Dialect, port: int, tables: list[Table], expected: list[Labels]) -> Iterator[float]:
    """Yield the seconds that each request took, from its first byte to the last of its answer, which must be right."""
    requests = [dialect.encode(table) for table in tables]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        # The first opens the connection; it is not timed.
        for number, (body, headers) in enumerate([requests[-1], *requests], -1):
            started = time.perf_counter()
            connection.request("POST", dialect.path, body, headers)
            response = connection.getresponse()
            content = response.read()
            took = time.perf_counter() - started
            if response.status != 200:
                raise StackError(f"{dialect.name}: {response.status} {content[:500]!r}")
            answered = dialect.decode(content, {name.lower(): value for name, value in response.getheaders()})
            if not np.array_equal(answered, expected[number]):
                raise StackError(f"{dialect.name}: wrong classes")
            if number >= 0:
                yield took
    finally:
        connection.close()


def _flat(name: str) -> Callable[[Table], tuple[bytes, dict[str, str]]]:
    def encode(rows: Table) -> tuple[bytes, dict[str, str]]:
        tensor = {"name": name, "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
        return json.dumps({"inputs": [tensor]}).encode(), {"Content-Type": "application/json"}

    return encode


def _objects(rows: Table) -> tuple[bytes, dict[str, str]]:
    content = [dict(zip(NAMES, row, strict=True)) for row in rows.tolist()]
    return json.dumps(content).encode(), {"Content-Type": "application/json"}


def _binary(name: str, answers: dict[str, Any]) -> Callable[[Table], tuple[bytes, dict[str, str]]]:
    def encode(rows: Table) -> tuple[bytes, dict[str, str]]:
        content = rows.tobytes()
        tensor = {
            "name": name,
            "shape": list(rows.shape),
            "datatype": "FP64",
            "parameters": {"binary_data_size": len(content)},
        }
        head = json.dumps({"inputs": [tensor], **answers}).encode()
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        return head + content, headers

    return encode


def _labels_of_objects(content: bytes, _headers: dict[str, str]) -> Labels:
    return np.array([each["prediction"] for each in json.loads(content)])


def _labels_of_tensors(content: bytes, headers: dict[str, str]) -> Labels:
    length = int(headers.get("inference-header-content-length", len(content)))
    head, binary = content[:length], content[length:]
    for output in json.loads(head)["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        if output["name"] in {"prediction", "predict"}:
            return np.frombuffer(binary[:size], "<i8") if size else np.array(output["data"])
        binary = binary[size:]
    raise StackError("there is no output with the classes")


def beside(rounds: int, seconds: int, *, docs: bool) -> int:
    """Ask for single rows through the gateway, alone and beside clients that send batches; print what that took."""
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, nothing_left_behind(), ExitStack() as ending:
        folder = Path(temporary)
        bundle = make_bundle(folder / "bundle")
        setup = Setup(environments.python("app"), bundle, folder, _free_ports(PORTS))
        servers = gunicorn(setup, "onnx")
        for server in servers:
            process = Process(server.command, server.environ(folder) | LIMITS, folder, folder / f"{server.port}.log")
            ending.callback(process.end)
            wait_until_ready(process, server.port, "/v2/health/ready")
        https, plain = setup.ports[-2:]
        upstreams = [f"127.0.0.1:{server.port}" for server in servers]
        # What 100,000 values follow to; several of them may then be on their way at a time.
        settings = {"nginx_client_max_body_size": 4 << 20}
        nginx = front.start(folder / "nginx", (https, plain), upstreams, "/predict", naive=False, settings=settings)
        ending.callback(nginx.end)
        _wait_for_port(nginx, https)
        found: dict[str, list[list[float]]] = {}
        for number in range(1, rounds + 1):
            for name, loads in random.sample(list(BESIDE.items()), len(BESIDE)):
                took = _singles_beside(https, loads, seconds)
                found.setdefault(name, []).append(took)
                print(
                    f"{number:3} {name}: p50 {took[0]:.2f}, p99 {took[1]:.2f} ms, failed {took[2]:.0f}, "
                    f"batches/s {took[3]:.1f}",
                    flush=True,
                )
        lines = [
            f"Medians over {rounds} rounds of {seconds} seconds:",
            "",
            "| single rows, 100/s through the gateway | p50 ms | p99 ms | failed | batches/s |",
            "|---|---|---|---|---|",
        ]
        for name in BESIDE:
            p50, p99, _, batches = (median(values) for values in zip(*found[name], strict=True))
            failed = sum(took[2] for took in found[name])
            lines.append(f"| {name} | {p50:.2f} | {p99:.2f} | {failed:.0f} | {batches:.1f} |")
        text = "\n".join(lines)
        print(f"\n{text}")
        if docs:
            pages.put(PAGE, BEGIN_BESIDE, text)
    return int(any(each[2] for took in found.values() for each in took))


def _singles_beside(port: int, loads: tuple[tuple[str, int], ...], seconds: int) -> list[float]:
    """Return median and 99th percentile in ms, how many single rows failed, and the batches answered a second."""
    counts = [multiprocessing.Value("i", 0) for _ in loads]
    clients = [
        multiprocessing.Process(target=_send_batches, args=(port, name, rows, count), daemon=True)
        for (name, rows), count in zip(loads, counts, strict=True)
    ]
    for client in clients:
        client.start()
    # Their bodies are made first.
    time.sleep(3 if clients else 0.5)
    before = sum(count.value for count in counts)
    generator = np.random.default_rng(secrets.randbits(32))
    rows = [
        json.dumps(dict(zip(NAMES, row, strict=True))).encode()
        for row in generator.normal(size=(256, FEATURES)).tolist()
    ]
    # Opened before: 24 handshakes at once, of 2,000 requests, would be the slowest of a hundred.
    connections = [_secure(port) for _ in range(THREADS)]
    for connection in connections:
        connection.connect()
    local = threading.local()

    def open_connection() -> None:
        local.connection = connections.pop()

    started = time.perf_counter() + 0.1

    def ask_one(number: int) -> float:
        due = started + number / RATE
        time.sleep(max(0, due - time.perf_counter()))
        try:
            local.connection.request(
                "POST", "/predict", rows[number % len(rows)], JSON | {"Authorization": front.AUTHORIZATION}
            )
            response = local.connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            local.connection.close()
            return math.nan
        # From when it was due: one that had to wait for another was late for its client too.
        return 1e3 * (time.perf_counter() - due) if response.status == 200 else math.nan

    with ThreadPoolExecutor(THREADS, initializer=open_connection) as pool:
        took = list(pool.map(ask_one, range(seconds * RATE)))
    batches = (sum(count.value for count in counts) - before) / seconds
    if not all(client.is_alive() for client in clients):
        raise StackError("a client that sends batches was not answered as it should be")
    for client in clients:
        client.terminate()
        client.join()
    right = sorted(each for each in took if not math.isnan(each))
    return [median(right), right[int(0.99 * len(right))], float(len(took) - len(right)), batches]


def _send_batches(port: int, name: str, rows: int, count: Any) -> None:
    """Send batches without pause until the process is ended."""
    dialect = next(each for each in DIALECTS if each.name == name)
    generator = np.random.default_rng(secrets.randbits(32))
    requests = [dialect.encode(generator.normal(size=(rows, FEATURES))) for _ in range(8)]
    connection = _secure(port)
    for body, headers in itertools.cycle(requests):
        connection.request("POST", dialect.path, body, headers | {"Authorization": front.AUTHORIZATION})
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise StackError(f"{name}: {response.status} {content[:200]!r}")
        count.value += 1


def _secure(port: int) -> http.client.HTTPSConnection:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)


JSON = {"Content-Type": "application/json"}
LIMITS = {"IRIS_API_MAX_BODY_BYTES": str(16 << 20), "IRIS_API_MAX_ROWS": "100000"}
RATE, THREADS = 100, 24
BESIDE: dict[str, tuple[tuple[str, int], ...]] = {
    "alone": (),
    "beside JSON batches of 1,000 rows": (("Fortress objects", 1000),),
    "beside binary batches of 10,000 rows": (("Fortress v2 binary", 10_000),),
    "beside both": (("Fortress objects", 1000), ("Fortress v2 binary", 10_000)),
    "beside JSON batches of 10,000 rows": (("Fortress objects", 10_000),),
}
OWN, PEER = f"/v2/models/{MODEL}/infer", "/v2/models/iris/infer"
BINARY_OUT = {"outputs": [{"name": "prediction", "parameters": {"binary_data": True}}]}
BARE, PEER_NAME = "bare session", "MLServer v2 flat"
# MLServer 1.7.1 answers a binary tensor over HTTP 500: its fastest dialect is the flat one.
DIALECTS = [
    Dialect("Fortress v2 flat", "Fortress", OWN, _flat("input"), _labels_of_tensors),
    Dialect("Fortress objects", "Fortress", "/predict", _objects, _labels_of_objects),
    Dialect("Fortress v2 binary", "Fortress", OWN, _binary("input", BINARY_OUT), _labels_of_tensors),
    Dialect(PEER_NAME, "MLServer", PEER, _flat("input"), _labels_of_tensors),
]
TITLES = {
    BARE: "the bare session, without a server",
    "Fortress v2 flat": "Fortress, v2, JSON, a flat tensor",
    "Fortress objects": "Fortress, `/predict`, JSON, rows as objects",
    "Fortress v2 binary": "Fortress, v2, binary tensors",
    PEER_NAME: f"MLServer {environments.version('mlserver')}, v2, JSON, a flat tensor",
}


def table(
    seconds: dict[tuple[str, int], list[float]], cpu: dict[tuple[str, int], list[float]], sizes: list[int]
) -> Iterator[str]:
    """Yield the lines of a table in Markdown: medians, and medians of the ratios within a round."""
    yield "| rows | way | ms | rate, of MLServer's | of the bare session's | processor ms | of MLServer's |"
    yield "|---|---|---|---|---|---|---|"
    for rows in sizes:
        for name, title in TITLES.items():
            if not (own := seconds.get((name, rows))):
                continue
            to_peer, to_bare = (
                f"{median(b / o for b, o in zip(base, own, strict=True)):.2f}" if base else ""
                for base in (seconds.get((other, rows), []) for other in (PEER_NAME, BARE))
            )
            used, peer = cpu.get((name, rows), []), cpu.get((PEER_NAME, rows), [])
            took = f"{1e3 * median(used):.2f}" if used else ""
            more = f"{median(o / p for p, o in zip(peer, used, strict=True)):.2f}" if used and peer else ""
            ratio = "" if name == BARE else to_peer
            yield f"| {rows:,} | {title} | {1e3 * median(own):.2f} | {ratio} | {to_bare} | {took} | {more} |"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped.")
