"""Deployments under load: good ones, bad ones, one that is cut off, and the way back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests import operator
from tests.faults.traffic import Load, Record
from tests.operator import deploy, history, main_pids, play, ready, rollback

testinfra_hosts = ["ansible://api"]

ROLLING = 20
"""Seconds that three instances may take, one after the other."""
FOREST = ("-e", "fortress_model_name=iris-forest")


@pytest.fixture(scope="module", autouse=True)
def default_at_the_end(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    done = deploy(str(request.config.fortress_inventory))  # type: ignore[attr-defined]
    assert done.returncode == 0, done.stdout


def served(host: Host) -> list[Any]:
    """What each instance serves."""
    return [(said["model"], said["deployment"]) for said in (ready(host, instance) for instance in (1, 2, 3))]


def test_a_deployment(host: Host, inventory: str, load: Load, record: Record) -> None:
    before = main_pids(host)
    with load() as traffic:
        done = deploy(inventory, *FOREST)
    assert done.returncode == 0, done.stdout
    assert [model for model, _ in served(host)] == ["iris-forest"] * 3
    assert not set(before) & set(main_pids(host))
    took = history(host)[-1]["seconds"]
    record("deployment", traffic, took)
    traffic.assert_nothing_failed()
    assert took <= ROLLING


def test_a_rollback(host: Host, inventory: str, load: Load, record: Record) -> None:
    with load() as traffic:
        done = rollback(inventory)
    assert done.returncode == 0, done.stdout
    assert [model for model, _ in served(host)] == ["iris"] * 3
    took = history(host)[-1]["seconds"]
    record("rollback", traffic, took)
    traffic.assert_nothing_failed()
    assert took <= ROLLING


def app(defect: str) -> Callable[[Path], list[str]]:
    return lambda folder: operator.broken_app(folder, defect)


def model(change: Callable[[Path], None]) -> Callable[[Path], list[str]]:
    return lambda folder: operator.broken_model(folder, change)


@pytest.mark.parametrize(
    ("fault", "broken", "complaint"),
    [
        ("does not start", app(operator.DOES_NOT_START), "iris-api@candidate.service does not start"),
        (
            "does not start as the second instance",
            app(operator.SECOND_INSTANCE_DOES_NOT_START),
            "iris-api@2.service does not start",
        ),
        ("starts and hangs", app(operator.HANGS), "the last probe of /health/ready: no answer"),
        ("answers 500", app(operator.ANSWERS_500), "the last probe of /health/ready: 500"),
        ("has a corrupt model", operator.damaged_model, "its sha256 is"),
        ("misses its golden samples", model(operator.promise_another_answer), "golden sample 1"),
    ],
)
def test_a_bad_deployment(
    host: Host,
    inventory: str,
    load: Load,
    record: Record,
    tmp_path: Path,
    fault: str,
    broken: Callable[[Path], list[str]],
    complaint: str,
) -> None:
    """It ends red, everything serves what it served before, and no client notices."""
    before, pids = served(host), main_pids(host)
    options = broken(tmp_path)
    with load() as traffic:
        # Less than an operator would wait for one that does not answer.
        done = deploy(inventory, *options, "-e", "iris_api_deploy_timeout=40")
    assert done.returncode != 0, done.stdout
    assert complaint in " ".join(done.stdout.split()), done.stdout
    assert served(host) == before
    event = history(host)[-1]
    assert event["event"] == "aborted"
    # At most the first two took part, and the third never did.
    assert main_pids(host)[2] == pids[2]
    record(f"deployment that {fault}", traffic, event["seconds"], "aborted, the old one goes on")
    traffic.assert_nothing_failed()


def test_a_deployment_that_is_cut_off_and_run_again(host: Host, inventory: str, load: Load, record: Record) -> None:
    quiet = ("-e", "iris_api_log_level=warning")
    with load() as traffic:
        operator.deploy_and_lose_the_control_node(host, inventory, "iris-forest", *quiet)
        done = deploy(inventory, *FOREST, *quiet)
    assert done.returncode == 0, done.stdout
    assert [model for model, _ in served(host)] == ["iris-forest"] * 3
    record("deployment whose control node is killed, run again", traffic, None)
    traffic.assert_nothing_failed()


@pytest.mark.parametrize("dead", [(1, 2), (2, 3)], ids=["1 and 2", "2 and 3"])
def test_a_deployment_while_two_instances_are_dead(
    host: Host, inventory: str, load: Load, record: Record, dead: tuple[int, ...]
) -> None:
    """What one types to repair them: the one that serves is touched last, and not before nginx asks the others."""
    units = " ".join(f"iris-api@{number}" for number in dead)
    other = "iris" if served(host)[0][0] == "iris-forest" else "iris-forest"
    with load() as traffic:
        host.run_expect([0], f"systemctl stop {units}")
        done = deploy(inventory, "-e", f"fortress_model_name={other}")
    assert done.returncode == 0, done.stdout
    assert [model for model, _ in served(host)] == [other] * 3
    record(f"deployment while {' and '.join(map(str, dead))} are dead", traffic, history(host)[-1]["seconds"])
    traffic.assert_nothing_failed()


@pytest.mark.parametrize(
    ("what", "settings"),
    [
        ("all ports by one", {"fortress_api_base_port": 8002}),
        ("the number of instances to 2", {"fortress_api_instances": 2}),
        ("the address to the host's own", {"iris_api_bind_address": "HOST", "iris_api_clients": ["HOST"]}),
    ],
    ids=["ports", "instances", "address"],
)
def test_a_change_of_what_is_the_hosts(
    host: Host, inventory: str, load: Load, record: Record, what: str, settings: dict[str, Any]
) -> None:
    """Old and new serve side by side until nginx knows; the address is what changes when one host becomes two."""
    settings = json.loads(json.dumps(settings).replace("HOST", os.environ["FORTRESS_HOST"]))
    wrong = []
    for name, variables in ((f"converge that changes {what}", settings), ("the way back", {})):
        with load() as traffic:
            done = play(inventory, "site.yml", **variables)
        assert done.returncode == 0, done.stdout
        listening = host.run("ss --no-header --listening --tcp --numeric --processes | grep iris-api").stdout
        base = variables.get("fortress_api_base_port", 8001)
        address = variables.get("iris_api_bind_address", "127.0.0.1")
        ports = range(base, base + variables.get("fortress_api_instances", 3))
        found, wanted = (
            sorted(line.split()[3] for line in listening.splitlines()),
            [f"{address}:{port}" for port in ports],
        )
        wrong += [] if found == wanted else [f"{found} is not {wanted}"]
        record(name, traffic)
        wrong += [traffic.explain()] if traffic.failures else []
        traffic.assert_enough()
    assert not wrong, "\n".join(wrong)


def test_a_rollback_after_a_change_of_ports(host: Host, inventory: str, load: Load, record: Record) -> None:
    """It takes the model back, and not the ports."""
    assert deploy(inventory, *FOREST).returncode == 0
    assert play(inventory, "site.yml", fortress_api_base_port=9001).returncode == 0
    try:
        with load() as traffic:
            done = rollback(inventory)
        assert done.returncode == 0, done.stdout
        said = json.loads(host.check_output("curl --silent http://127.0.0.1:9003/health/ready"))
        assert said["model"] == "iris"
    finally:
        back = play(inventory, "site.yml")
    assert back.returncode == 0, back.stdout
    record("rollback after a change of ports", traffic, history(host)[-1]["seconds"])
    traffic.assert_nothing_failed()


def test_a_converge_that_changes_nothing(host: Host, inventory: str, load: Load, record: Record) -> None:
    before = main_pids(host)
    with load() as traffic:
        done = play(inventory, "site.yml", *FOREST, "-e", json.dumps({"iris_api_log_level": "warning"}))
    assert done.returncode == 0, done.stdout
    assert main_pids(host) == before
    record("converge that changes nothing", traffic, None)
    traffic.assert_nothing_failed()
    assert {kind.found_closed + kind.hit_closed for kind in traffic.kinds.values()} == {0}, traffic.kinds
