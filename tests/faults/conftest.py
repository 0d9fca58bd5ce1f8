"""Faults on a provisioned host under a steady load from outside; what was measured is kept for docs/faults.md."""

from __future__ import annotations

import json
import os
import random
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest
from testinfra.host import Host

from tests import ROOT
from tests.faults.table import AttackRow, Row
from tests.faults.traffic import Load, Record, Strike, Traffic, wait_until_whole
from tests.ordered import put_in_order

HERE = Path(__file__).resolve().parent
# Both take the same inputs and may give them other classes: a client must get the one of the model its answer names.
MODELS = ("iris", "iris-forest"), "1.0.0"
DISTINCT = 20_000
RECORD = "FORTRESS_FAULTS_RECORD"


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random distinct inputs, and the classes that the shipped models themselves give them."""
    inputs = list({(round(random.uniform(0.1, 7.5), 4), round(random.uniform(0.1, 3), 4)) for _ in range(DISTINCT)})
    file = tmp_path_factory.mktemp("faults") / "cases.json"
    names, version = MODELS
    classes = {}
    for name in names:
        model = joblib.load(ROOT / "models" / name / version / "model.joblib")
        classes[f"{name} {version}"] = [int(label) for label in model.predict(inputs)]
    file.write_text(json.dumps({"inputs": inputs, "classes": classes}))
    return file


@pytest.fixture
def load(host: Host, cases: Path) -> Load:
    """Return a context in which clients of every kind send requests, and 2 s longer."""

    def load(*, password: str = os.environ["FORTRESS_PASSWORD"], linger: float = 2) -> Traffic:
        return Traffic(host, cases, password, linger)

    return load


@pytest.fixture
def strike(host: Host) -> Strike:
    """Do something to instances of the API; return who ran before and after, and how long each took to serve again.

    What is done is a shell command on the host, in which {worker1} and {master1} are processes of iris-api@1.
    """
    program = (HERE / "on_host.py").read_text()

    def strike(
        traffic: Traffic, do: str, *, instances: tuple[int, ...], gone: tuple[str, ...], within: float
    ) -> dict[str, Any]:
        wanted = shlex.quote(json.dumps({"do": do, "instances": instances, "gone": gone, "within": within}))
        traffic.strike()
        done = host.run(f"python3 - {wanted} <<'PROGRAM'\n{program}\nPROGRAM")
        assert done.rc == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert None not in found["took"].values(), f"not ready within {within} s: {found}"
        return found

    return strike


@pytest.fixture(autouse=True)
def healthy(request: pytest.FixtureRequest) -> None:
    """Begin each test on a host with all units running, and with instances that nginx has forgiven what they did."""
    if "host" in request.fixturenames:
        wait_until_whole(request.getfixturevalue("host"))


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Keep what a test measured for the table in docs/faults.md."""

    def record(fault: str, traffic: Traffic, recovery: float | None = None, note: str = "") -> None:
        row = Row(fault, traffic.kinds, traffic.failed, recovery, note)
        request.config.stash.setdefault(ROWS, []).append(row)
        print(row)

    return record


@pytest.fixture
def record_attack(request: pytest.FixtureRequest) -> Callable[[AttackRow], None]:
    """Keep what an attack did for its table in docs/faults.md."""

    def record(row: AttackRow) -> None:
        request.config.stash.setdefault(ATTACKS, []).append(row)
        print(row)

    return record


# As in the tables: first what the load itself does, then what takes the host down, last what needs the limits.
ORDER = (
    "instruments",
    "control",
    "instances",
    "restarts",
    "deployments",
    "gateway",
    "secrets",
    "monitoring",
    "disk",
    "power",
    "backup",
    "cluster",
    "upgrade",
    "attack",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of this folder into their order, and leave those of others where they are."""
    put_in_order(items, HERE, ORDER)


ROWS = pytest.StashKey[list[Row]]()
ATTACKS = pytest.StashKey[list[AttackRow]]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Leave a record of a complete run in which every test passed, after what another scenario has left."""
    file = os.environ.get(RECORD)
    if file and exitstatus == 0:
        before = json.loads(Path(file).read_text()) if Path(file).exists() else {"faults": [], "attacks": []}
        kept = {
            "faults": before["faults"] + [row.as_json() for row in session.config.stash.get(ROWS, [])],
            "attacks": before["attacks"] + [row.as_json() for row in session.config.stash.get(ATTACKS, [])],
        }
        Path(file).write_text(json.dumps(kept, indent=1))
