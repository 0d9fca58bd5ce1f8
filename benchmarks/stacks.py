"""What is measured: how each stack's servers are started, asked and understood. docs/benchmarks.md says why so."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import ROOT
from benchmarks.inputs import Case, named

SERVERS = Path(__file__).parent / "servers"
INSTANCES = 3
"""How many instances, replicas or workers every stack gets."""

# What finds class and probabilities in an answer; a Lua pattern that is a regular expression once % is \\.
NUMBERS = r"%[%s*([^,%[]+),%s*([^,]+),%s*([^,%]]+)%s*%]"
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
        ours = {"HOME": str(folder), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        return {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **ours, **self.settings}


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


def _gunicorn(setup: Setup, engine: str, *arguments: str) -> list[Server]:
    """Start instances as the unit iris-api@ does."""
    return [
        Server(
            [setup.program("gunicorn"), "--config", "python:iris_api.gunicorn_conf", *arguments],
            port,
            {
                "PYTHONPATH": f"{ROOT / 'app' / 'src'}:{SERVERS}",
                "IRIS_API_INSTANCE": str(number),
                "IRIS_API_BASE_PORT": str(port - number + 1),
                "IRIS_API_MODEL_DIR": str(setup.bundle),
                "IRIS_API_ENGINE": engine,
            },
        )
        for number, port in enumerate(setup.ports[:INSTANCES], 1)
    ]


def _naive(setup: Setup) -> list[Server]:
    return [
        Server(
            [setup.program("uvicorn"), f"--app-dir={SERVERS}", f"--port={port}", "naive:app"],
            port,
            {"MODEL": str(setup.artifact)},
        )
        for port in setup.ports[:INSTANCES]
    ]


LIMIT_ANSWER = Case(0, 0, 2, (1.2871073412521729e-05, 0.15970350208560846, 0.8402836268409791))

STACKS = {
    stack.name: stack
    for stack in (
        Stack("limit", "limit: bare ASGI", "app", lambda s: _gunicorn(s, "auto", "limit:app"), constant=LIMIT_ANSWER),
        Stack("onnx", "Fortress, ONNX Runtime", "app", lambda s: _gunicorn(s, "onnx")),
        Stack("sklearn", "Fortress, scikit-learn", "app", lambda s: _gunicorn(s, "sklearn")),
        Stack("naive", "naive", "app", _naive, naive_front=True),
    )
}
