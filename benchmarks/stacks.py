"""What is measured: how each stack's servers are started, asked and understood. docs/benchmarks.md says why so."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import ROOT
from benchmarks.inputs import Case, named

SERVERS = Path(__file__).parent / "servers"
APPLICATION = ROOT / "app" / "iris_api" / "src"
INSTANCES = 3
"""How many instances, replicas or workers every stack gets."""

# What finds class and probabilities in an answer; a Lua pattern that is a regular expression once % is \\.
NUMBERS = r"%[%s*([%d.eE+-]+),%s*([%d.eE+-]+),%s*([%d.eE+-]+)%s*%]"
PREDICT = rf'"prediction":%s*(%d+),%s*"prediction_proba":%s*{NUMBERS}'


@dataclass(frozen=True)
class Setup:
    """What a stack's servers are given."""

    python: Path
    bundle: Path
    folder: Path
    ports: list[int]

    @property
    def artifact(self) -> Path:
        """The model as joblib wrote it."""
        return self.bundle / "model.joblib"

    def program(self, name: str) -> str:
        """Return a program of the environment."""
        return str(self.python.with_name(name))


@dataclass(frozen=True)
class Server:
    """One program to start, and the port that it answers on."""

    command: list[str]
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)

    def environ(self, folder: Path) -> dict[str, str]:
        """Return its environment: whatever it writes stays in our folder, and a call of the model takes one thread."""
        return {
            "PATH": f"{Path(self.command[0]).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            **self.settings,
        }


@dataclass(frozen=True)
class Stack:
    """One way to serve the model."""

    name: str
    title: str
    environment: str
    servers: Callable[[Setup], list[Server]]
    path: str = "/predict"
    body: Callable[[Case], str] = named
    pattern: str = PREDICT
    constant: Case | None = None
    """The one answer to everything, of a stack without a model."""
    naive_front: bool = False
    peer: bool = False


def gunicorn(setup: Setup, engine: str, *arguments: str, source: Path = APPLICATION) -> list[Server]:
    """Start instances as the unit iris-api@ does, of the application in a folder; release 1.0.0 has no rooms in it."""
    room = "server." if (source / "iris_api" / "server").is_dir() else ""
    return [
        Server(
            [setup.program("gunicorn"), "--config", f"python:iris_api.{room}gunicorn_conf", *arguments],
            port,
            {
                "PYTHONPATH": f"{source}:{SERVERS}",
                "IRIS_API_INSTANCE": str(number),
                "IRIS_API_BASE_PORT": str(port - number + 1),
                "IRIS_API_MODEL_DIR": str(setup.bundle),
                "IRIS_API_ENGINE": engine,
            },
        )
        for number, port in enumerate(setup.ports[:INSTANCES], 1)
    ]


def _limit(setup: Setup) -> list[Server]:
    command = [setup.program("gunicorn"), "--config", "python:limit_conf"]
    return [Server(command, port, {"PYTHONPATH": str(SERVERS), "PORT": str(port)}) for port in setup.ports[:INSTANCES]]


def _naive(setup: Setup) -> list[Server]:
    return [
        Server(
            [setup.program("uvicorn"), f"--app-dir={SERVERS}", f"--port={port}", "naive:app"],
            port,
            {"MODEL": str(setup.artifact)},
        )
        for port in setup.ports[:INSTANCES]
    ]


def _mlserver(setup: Setup) -> list[Server]:
    """Start MLServer's instances: each batches by itself and computes in its own process."""
    model = {
        "name": "iris",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "max_batch_size": 16,
        "max_batch_time": 0.001,
        "parameters": {"uri": str(setup.artifact)},
    }
    (setup.folder / "model-settings.json").write_text(json.dumps(model))
    servers = []
    for number in range(INSTANCES):
        http, grpc, metrics = setup.ports[3 * number : 3 * number + 3]
        settings = {
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": str(http),
            "MLSERVER_GRPC_PORT": str(grpc),
            "MLSERVER_METRICS_PORT": str(metrics),
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_DEBUG": "false",
        }
        servers.append(Server([setup.program("mlserver"), "start", str(setup.folder)], http, settings))
    return servers


def _workers(*command: str, **settings: str) -> Callable[[Setup], list[Server]]:
    """Start one program that makes its workers by itself; {servers} and {port} are filled in."""

    def servers(setup: Setup) -> list[Server]:
        port = setup.ports[0]
        program, *arguments = [word.format(servers=SERVERS, port=port) for word in command]
        known = {"MODEL": str(setup.artifact), "PORT": str(port), "WORKERS": str(INSTANCES)}
        return [Server([setup.program(program), *arguments], port, known | settings)]

    return servers


def _v2(case: Case) -> str:
    """Return a row for the Open Inference Protocol; one call of the model answers it."""
    inputs = {"name": "row", "shape": [1, 2], "datatype": "FP64", "data": [case.petal_length, case.petal_width]}
    return json.dumps({"inputs": [inputs], "outputs": [{"name": "predict_proba"}]})


LIMIT_ANSWER = Case(0, 0, 2, (1.2871073412521729e-05, 0.15970350208560846, 0.8402836268409791))

STACKS = {
    stack.name: stack
    for stack in (
        Stack("limit", "bare ASGI", "app", _limit, constant=LIMIT_ANSWER),
        Stack(
            *("limit-own", "bare ASGI, our server", "app"),
            lambda s: gunicorn(s, "auto", "limit:direct"),
            constant=LIMIT_ANSWER,
        ),
        Stack("onnx", "Fortress, ONNX Runtime", "app", lambda s: gunicorn(s, "onnx")),
        Stack("sklearn", "Fortress, scikit-learn", "app", lambda s: gunicorn(s, "sklearn")),
        Stack("naive", "naive", "app", _naive, naive_front=True),
        Stack(
            "mlserver",
            "MLServer",
            "mlserver",
            _mlserver,
            path="/v2/models/iris/infer",
            body=_v2,
            pattern=rf'"data":%s*{NUMBERS}',
            peer=True,
        ),
        Stack(
            "bentoml",
            "BentoML",
            "bentoml",
            _workers(
                *("bentoml", "serve", "bento:Iris", "--working-dir={servers}", "--host=127.0.0.1", "--port={port}"),
                BENTOML_DO_NOT_TRACK="True",
            ),
            body=lambda case: json.dumps({"rows": [[case.petal_length, case.petal_width]]}),
            pattern=NUMBERS,
            peer=True,
        ),
        Stack("litserve", "LitServe", "litserve", _workers("python", "{servers}/lit.py"), peer=True),
        Stack(
            "mlflow",
            "MLflow",
            "mlflow",
            _workers("python", "{servers}/mlflow_model.py", MLFLOW_DISABLE_TELEMETRY="true"),
            path="/invocations",
            body=lambda case: json.dumps({"inputs": [[case.petal_length, case.petal_width]]}),
            pattern=NUMBERS,
            peer=True,
        ),
        Stack(
            "ray",
            "Ray Serve",
            "ray",
            _workers(
                *("python", "{servers}/rayserve.py"), RAY_USAGE_STATS_ENABLED="0", RAY_SERVE_THROUGHPUT_OPTIMIZED="1"
            ),
            peer=True,
        ),
    )
}
