"""Deployments: what is good takes over one instance after the other, what is bad never does; and the way back."""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from testinfra.host import Host

from tests import ROOT, operator
from tests.operator import deploy, history, main_pids, play, ready, rollback

testinfra_hosts = ["ansible://api"]

# Options of the playbook, and the model and the engine that come of them. What each release's Python makes of sixty
# models, tests/deployments/test_matrix.py asks. An instance by scikit-learn is on both releases: test_environments.py.
MODELS = [
    pytest.param("iris_api_engine=sklearn", "iris", "sklearn", marks=pytest.mark.one_release),
    pytest.param("fortress_model_name=wine", "wine", "onnx", marks=pytest.mark.one_release),
    ("fortress_model_name=diabetes", "diabetes", "onnx"),
    ("fortress_model_name=iris-forest", "iris-forest", "onnx"),
]


def serving(host: Host) -> str:
    """Return the id of the deployment that all three instances serve."""
    (found,) = {ready(host, instance)["deployment"] for instance in (1, 2, 3)}
    return str(found)


def answers_its_golden_samples(host: Host, name: str, engine: str) -> None:
    """Check that all three instances serve a model by an engine, and ask each for the answers that were promised."""
    manifest = json.loads((ROOT / "models" / name / "1.0.0" / "manifest.json").read_text())
    for instance in (1, 2, 3):
        assert (ready(host, instance)["model"], ready(host, instance)["engine"]) == (name, engine)
        url = f"http://127.0.0.1:{8000 + instance}/predict"
        samples = manifest["golden_samples"]
        asked = [f"curl --silent --json '{json.dumps(sample['input'])}' {url}; echo" for sample in samples]
        answers = host.check_output("; ".join(asked)).splitlines()
        for sample, answer in zip(samples, answers, strict=True):
            assert math.isclose(json.loads(answer)["prediction"], sample["prediction"], rel_tol=1e-6), answer


@pytest.mark.parametrize(("option", "name", "engine"), MODELS)
def test_another_model_or_engine_is_one_variable(
    host: Host, inventory: str, option: str, name: str, engine: str
) -> None:
    pids = main_pids(host)
    done = deploy(inventory, "-e", option)
    assert done.returncode == 0, done.stdout
    assert not set(pids) & set(main_pids(host))
    answers_its_golden_samples(host, name, engine)
    event = history(host)[-1]
    assert (event["event"], event["deployment"]) == ("deployed", serving(host))
    assert "@" in event["who"]


def test_a_rollback_goes_to_the_one_before_and_marks_what_it_left(host: Host, inventory: str) -> None:
    done = rollback(inventory)
    assert done.returncode == 0, done.stdout
    assert ready(host, 1)["model"] == "diabetes"
    event = history(host)[-1]
    assert (event["event"], event["deployment"]) == ("rolled back", serving(host))
    assert event["blamed"].startswith("iris-forest-1.0.0-")

    done = rollback(inventory, "-e", "rollback_to=iris-forest")
    assert done.returncode != 0
    assert "was rolled back from" in done.stdout
    assert ready(host, 1)["model"] == "diabetes"


@pytest.mark.one_release
def test_the_site_does_not_bring_back_what_was_rolled_back_from(host: Host, inventory: str) -> None:
    pids = main_pids(host)
    done = play(inventory, "site.yml", "-e", "fortress_model_name=iris-forest", "--tags", "iris_api")
    assert done.returncode == 0, done.stdout
    assert "was not deployed" in " ".join(done.stdout.split())
    assert main_pids(host) == pids


@pytest.mark.one_release
def test_a_named_model_can_be_rolled_back_to(host: Host, inventory: str) -> None:
    done = rollback(inventory, "-e", "rollback_part=model", "-e", "rollback_to=wine")
    assert done.returncode == 0, done.stdout
    assert [ready(host, instance)["model"] for instance in (1, 2, 3)] == ["wine"] * 3


@pytest.mark.one_release
def test_the_tour_and_verify_ask_what_is_deployed(host: Host, inventory: str) -> None:
    assert ready(host, 1)["model"] == "wine"
    manifest = json.loads((ROOT / "models" / "wine" / "1.0.0" / "manifest.json").read_text())
    settings = os.environ.get("FORTRESS_ENV_FILE", f"{inventory}/secrets/fortress.env")
    asked = subprocess.run([ROOT / "tools" / "tour", "predict", settings], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert math.isclose(answer["prediction"], manifest["golden_samples"][0]["prediction"], rel_tol=1e-6)
    # What watches the site tests/host/test_monitoring.py has verified.
    verified = play(inventory, "playbooks/verify.yml", "--tags", "gateway,iris_api")
    assert verified.returncode == 0, verified.stdout
    assert "wine 1.0.0: " in verified.stdout


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        pytest.param(operator.damaged_model, "its sha256 is", marks=pytest.mark.one_release),
        (lambda folder: operator.broken_model(folder, operator.promise_another_answer), "golden sample 1"),
    ],
    ids=["damaged", "golden samples are off"],
)
def test_a_bad_model_never_reaches_an_instance(
    host: Host, inventory: str, tmp_path: Path, broken: Callable[[Path], list[str]], complaint: str
) -> None:
    pids, before = main_pids(host), serving(host)
    done = deploy(inventory, *broken(tmp_path))
    assert done.returncode != 0
    assert complaint in done.stdout
    assert "iris-api@candidate" in done.stdout
    assert (main_pids(host), serving(host)) == (pids, before)
    event = history(host)[-1]
    assert event["event"] == "aborted"
    assert event["blamed"].startswith("iris-1.0.0-")
    assert host.run("systemctl --failed --no-legend").stdout == ""


@pytest.mark.one_release
def test_what_there_is_no_memory_for_is_refused_before_anything_is_touched(
    host: Host, inventory: str, tmp_path: Path
) -> None:
    """By the unit's bound; the host's own, app/iris_deploy/tests/test_memory.py."""
    pids, before, events = main_pids(host), serving(host), history(host)
    large = operator.broken_model(tmp_path, operator.take_more_memory)
    done = deploy(inventory, *large, "-e", "iris_api_engine=onnx")
    assert done.returncode != 0
    complaint = (
        "takes 1330 MB by onnx, but its unit allows 537 MB: the kernel would end it. Nothing was touched. "
        "Set iris_api_memory_max: 1400M, or iris_api_engine: sklearn (484 MB)."
    )
    assert complaint in " ".join(done.stdout.split()), done.stdout
    assert (main_pids(host), serving(host), history(host)) == (pids, before, events)


@pytest.mark.one_release
def test_release_1_0_0_can_still_be_deployed(host: Host, inventory: str) -> None:
    """With the settings that it knows, the bundle that came with it, and its own way to start."""
    first = "a678789"
    if subprocess.run(["git", "cat-file", "-e", f"{first}^{{commit}}"], cwd=ROOT, check=False).returncode:
        pytest.skip(f"this clone has no {first}")
    done = deploy(inventory, "-e", f"iris_api_revision={first}")
    assert done.returncode == 0, done.stdout
    assert "does not know max_bytes_in_flight, max_values, memory_max, request_deadline" in " ".join(
        done.stdout.split()
    )
    assert {ready(host, instance)["model"] for instance in (1, 2, 3)} == {"iris"}
    shown = subprocess.run(
        ["git", "show", f"{first}:models/iris/1.0.0/manifest.json"], cwd=ROOT, capture_output=True, check=True
    )
    assert host.file("/opt/iris-api/current/model/manifest.json").content == shown.stdout


@pytest.mark.one_release
def test_the_engine_that_fits_serves_a_large_model(host: Host, inventory: str, tmp_path: Path) -> None:
    """From release 1.0.0, too, which the test before has left."""
    done = deploy(inventory, *operator.broken_model(tmp_path, operator.take_more_memory))
    assert done.returncode == 0, done.stdout
    assert [ready(host, instance)["engine"] for instance in (1, 2, 3)] == ["sklearn"] * 3


@pytest.mark.one_release
def test_an_application_that_fails_on_its_second_instance_is_taken_back(
    host: Host, inventory: str, tmp_path: Path
) -> None:
    pids, before = main_pids(host), serving(host)
    options = operator.broken_app(tmp_path, operator.SECOND_INSTANCE_DOES_NOT_START)
    done = deploy(inventory, "-e", "fortress_model_name=diabetes", *options)
    assert done.returncode != 0
    assert "iris-api@2.service does not start" in done.stdout
    assert "broken on purpose" in done.stdout
    assert serving(host) == before
    after = main_pids(host)
    assert after[0] != pids[0]
    assert after[2] == pids[2]
    assert history(host)[-1]["event"] == "aborted"

    named = history(host)[-1]["blamed"]
    done = rollback(inventory, "-e", f"rollback_to={named}")
    assert done.returncode != 0
    assert "was aborted on" in done.stdout


@pytest.mark.one_release
def test_nothing_is_deployed_while_somebody_holds_it(host: Host, inventory: str) -> None:
    before = serving(host)
    host.run_expect([0], "iris-deploy hold 'the fair is on'")
    try:
        done = rollback(inventory, "-e", "rollback_to=wine")
        assert done.returncode != 0
        assert "the fair is on" in done.stdout
        assert serving(host) == before
    finally:
        host.run_expect([0], "iris-deploy unlock")
    assert [event["event"] for event in history(host)[-2:]] == ["held", "unlocked"]


@pytest.mark.one_release
def test_a_deployment_whose_control_node_dies_goes_on_and_can_be_asked_for_again(host: Host, inventory: str) -> None:
    operator.deploy_and_lose_the_control_node(host, inventory, "iris-full")
    done = deploy(inventory, "-e", "fortress_model_name=iris-full")
    assert done.returncode == 0, done.stdout
    answers_its_golden_samples(host, "iris-full", "onnx")
    assert [event["event"] for event in history(host)[-2:]] == ["begun", "deployed"]


def test_a_deployment_that_is_killed_is_finished_by_the_host(host: Host) -> None:
    """By the unit that does so after a power cut too."""
    before = ready(host, 1)["model"]
    # Neither was rolled back from: nobody goes back to what was.
    other, named = ("iris", "iris-1.0.0") if before == "diabetes" else ("wine", "wine")
    host.run_expect([0], f"systemd-run --quiet --collect iris-deploy rollback --part model --to {named}")
    for _ in range(200):
        if ready(host, 1).get("model") == other:
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"it did not begin: {history(host)[-1]}")
    assert ready(host, 3)["model"] == before, "it was over before it was killed"
    host.run_expect([0], "systemctl kill --signal=KILL 'iris-deploy-job-*.service'")
    cut = host.run("iris-deploy status --check")
    assert cut.rc == 1, cut.stdout
    for _ in range(100):
        if host.run("iris-deploy status --check").rc == 0:
            break
        time.sleep(0.3)
    assert [ready(host, instance)["model"] for instance in (1, 2, 3)] == [other] * 3
    assert host.run("systemctl --failed --no-legend").stdout == ""


@pytest.mark.one_release
def test_a_damaged_file_is_found_and_mended(host: Host, inventory: str) -> None:
    """Of the model, whose upload is quick; a release is treated alike."""
    host.run_expect([0], "echo >> /opt/iris-api/current/model/manifest.json")
    red = host.run("iris-deploy status --check")
    assert red.rc == 1 and "/manifest.json was damaged: `make converge`" in red.stdout
    pids = main_pids(host)
    done = deploy(inventory, "-e", f"fortress_model_name={ready(host, 1)['model']}")
    assert done.returncode == 0, done.stdout
    assert host.run("iris-deploy status --check").rc == 0
    # From what was damaged none of them had to start.
    assert main_pids(host) == pids


@pytest.mark.one_release
def test_ports_and_instances_are_the_hosts_and_change_by_the_site(host: Host, inventory: str) -> None:
    """What was deployed by hand stays meanwhile; what nginx no longer asks is gone afterwards."""
    parts, before = ("--tags", "iris_api,nginx"), ready(host, 1)["model"]
    try:
        done = play(inventory, "site.yml", *parts, fortress_api_instances=2, fortress_api_base_port=8002)
        assert done.returncode == 0, done.stdout
        assert "Host and inventory differ in model" in " ".join(done.stdout.split())
        assert not host.service("iris-api@3").is_running
        assert not host.service("iris-api@3").is_enabled
        assert host.run("ls /opt/iris-api/instances").stdout.split() == ["1", "2"]
        assert host.run("ls /opt/iris-api/listeners").stdout.split() == ["1.env", "2.env"]
        assert not host.socket("tcp://127.0.0.1:8001").is_listening
    finally:
        done = play(inventory, "site.yml", *parts)
    assert done.returncode == 0, done.stdout
    assert host.service("iris-api@3").is_enabled
    assert [ready(host, instance)["model"] for instance in (1, 2, 3)] == [before] * 3


def test_the_history_is_a_table(host: Host) -> None:
    lines = host.run("iris-deploy history").stdout.splitlines()
    assert lines[0].split()[:3] == ["TIME", "EVENT", "MODEL"]
    assert any("rolled back" in line for line in lines)
    assert any("aborted" in line and "Model refused" in line for line in lines)


def test_old_deployments_are_removed_and_those_that_run_never(host: Host) -> None:
    kept = host.run("ls /opt/iris-api/deployments").stdout.split()
    assert serving(host) in kept
    # Five that went through, and the one that runs if it is none of them.
    assert len(kept) <= 6
