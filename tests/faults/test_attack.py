"""One client does all that it is allowed, and tries more; a client at another address must not feel it.

The polite client asks for single rows, RATE times a second, over new and kept connections and over HTTP/2. A request of
its has failed if the right answer is not there within two seconds. The limits are as a site has them: on.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import pytest
from testinfra.host import Host

from tests import ROOT
from tests.faults import slow
from tests.faults.attack import KINDS
from tests.faults.siege import RATE, repeat
from tests.faults.table import AttackRow
from tests.operator import deploy, play

testinfra_hosts = ["ansible://gateway"]

LOCAL_NETWORK = ipaddress.ip_network("172.30.0.0/24")
SHORT = os.environ.get("ATTACK", "whole") == "short"
SECONDS = 8.0 if SHORT else 20.0
"""Of each attack: longer than nginx waits for an instance. In 20 s the p99 leaves out the slowest of a hundred."""
SHIPPED, SLOW = 250.0, 1000.0
"""Milliseconds that the p99 may take: with the shipped model, and with one whose largest legal request takes 5 s."""
LATE = 200.0
"""Milliseconds by which the polite client itself may be late: beyond them the machine is too busy to tell anything."""

Keep = Callable[[AttackRow], None]


@pytest.fixture(scope="module", autouse=True)
def limited(host: Host, request: pytest.FixtureRequest) -> Iterator[None]:
    """The gateway's limit is on, as a site has it; where the inventory lifts it, it is lifted again at the end."""
    try:
        local = ipaddress.ip_address(os.environ["FORTRESS_HOST"]) in LOCAL_NETWORK
    except ValueError:
        local = False
    if not local:
        pytest.skip(f"{os.environ['FORTRESS_HOST']} is no local VM: nothing else is to be attacked")
    inventory = str(request.config.fortress_inventory)  # type: ignore[attr-defined]
    lifted = host.run("grep --quiet 'limit_req zone' /etc/nginx/fortress.d/server-https.conf").rc != 0
    if lifted:
        done = play(inventory, "playbooks/gateway.yml", nginx_rate_limit_enabled=True)
        assert done.returncode == 0, done.stdout
    yield
    if lifted:
        done = play(inventory, "playbooks/gateway.yml")
        assert done.returncode == 0, done.stdout


def write_cases(file: Path, model: str, bundle: Path, count: int) -> Path:
    """Write random inputs, and the classes that a bundle's estimator gives them."""
    inputs = [[round(random.uniform(*span), 4) for span in slow.SPAN] for _ in range(count)]
    classes = [int(label) for label in joblib.load(bundle / "model.joblib").predict(inputs)]
    file.write_text(json.dumps({"inputs": inputs, "classes": {f"{model} 1.0.0": classes}}))
    return file


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs and answers of the model that is shipped."""
    return write_cases(
        tmp_path_factory.mktemp("attack") / "cases.json", "iris", ROOT / "models" / "iris" / "1.0.0", 2000
    )


@pytest.fixture(scope="module")
def slow_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The site serves a model that needs 5 s for its largest legal request; its inputs and answers."""
    inventory = str(request.config.fortress_inventory)  # type: ignore[attr-defined]
    models = tmp_path_factory.mktemp("models")
    seconds = slow.make(models)
    assert 0.7 * slow.SECONDS < seconds < 1.5 * slow.SECONDS, f"{seconds:.1f} s: not the model that was meant"
    done = deploy(inventory, "-e", json.dumps({"fortress_model_name": slow.NAME, "iris_api_models_dir": str(models)}))
    try:
        assert done.returncode == 0, done.stdout
        yield write_cases(models / "cases.json", slow.NAME, models / slow.NAME / slow.VERSION, 200)
    finally:
        done = deploy(inventory)
        assert done.returncode == 0, done.stdout


def measure(name: str | None, model: str, cases: Path, most_ms: float) -> AttackRow:
    """Attack while the polite client asks, again where only times were wrong."""
    return AttackRow(name or "none", model, *repeat(name, model, cases, SECONDS, most_ms, LATE))


def judge(row: AttackRow, most_ms: float) -> None:
    """Assert that the polite client felt nothing, and that both were what they are said to be."""
    polite, attack = row.polite, row.attack
    if row.name in KINDS:
        expected = KINDS[row.name].expected
        assert set(expected) & attack.answers.keys(), f"none of {expected} came back: {attack.answers}"
        assert attack.connections, attack
    assert polite.late_ms <= LATE, f"the polite client itself was late: the machine is too busy. {polite}"
    assert polite.sent >= 0.9 * RATE * SECONDS, polite
    assert polite.failed == 0, f"{polite.failed} of {polite.sent} failed: {polite.failures[:10]}"
    assert polite.p99_ms <= most_ms, polite


def names(*, model: bool = False) -> list[str]:
    """The attacks of the form that was asked for; those alone that give the model work, if that is said."""
    return [kind.name for kind in KINDS.values() if (kind.short or not SHORT) and (kind.model or not model)]


def test_nobody_attacks(shipped: Path, record_attack: Keep) -> None:
    """What is measured here is the measuring's own doing."""
    row = measure(None, "iris", shipped, SHIPPED)
    record_attack(row)
    judge(row, SHIPPED)


@pytest.mark.parametrize("name", names())
def test_attack(name: str, shipped: Path, record_attack: Keep) -> None:
    row = measure(name, "iris", shipped, SHIPPED)
    record_attack(row)
    judge(row, SHIPPED)


if not SHORT:

    @pytest.mark.parametrize("name", [None, *names(model=True)])
    def test_attack_on_a_slow_model(name: str | None, slow_model: Path, record_attack: Keep) -> None:
        row = measure(name, slow.NAME, slow_model, SLOW)
        record_attack(row)
        judge(row, SLOW)
