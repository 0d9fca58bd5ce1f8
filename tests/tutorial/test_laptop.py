"""The tutorial's commands, from a DataFrame to answers on the reader's own machine, are run as the page has them."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import tomllib
from importlib import metadata
from pathlib import Path

import joblib
import pandas as pd
import pytest
from iris_api.bundle.files import read_manifest
from packaging.requirements import Requirement

from tests import ROOT
from tests.tutorial import page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder, with all that training and packing has put there."""
    made = tmp_path_factory.mktemp("reader")
    page.make_notebook(made)
    for command in page.to_a_site():
        if command.startswith(("notebook/bin/python ", "notebook/bin/iris-model pack ")):
            page.run(command, made)
    return made


def command(start: str) -> str:
    (found,) = [each for each in page.to_a_site() if each.startswith(start)]
    return found


def test_from_a_table_to_a_site_there_are_ten_commands() -> None:
    assert len(page.to_a_site()) == 10


def test_the_readers_environment_is_the_one_of_these_tests() -> None:
    requirements = shlex.split(command("notebook/bin/pip install "))[2:]
    *packages, application = requirements
    found = re.fullmatch(r"\./(.+)\[(.+)\]", application)
    assert found
    project = tomllib.loads((ROOT / found[1] / "pyproject.toml").read_text())["project"]
    extras = [each for name in found[2].split(",") for each in project["optional-dependencies"][name]]
    for requirement in map(Requirement, [*packages, *project["dependencies"], *extras]):
        assert requirement.specifier.contains(metadata.version(requirement.name)), requirement
    # The one that the hosts have.
    lock = (ROOT / "requirements" / "app.txt").read_text()
    assert any(each.startswith("scikit-learn==") and f"{each} \\\n" in lock for each in packages)


def test_the_model_is_served_by_either_engine_and_brings_what_its_own_needs(folder: Path) -> None:
    manifest = read_manifest(folder / "models" / "churn" / "1.0.0")
    kinds = {feature.name: (feature.kind, feature.nullable) for feature in manifest.features}
    assert kinds == {
        "age": ("number", True),
        "visits": ("integer", False),
        "city": ("category", True),
        "zip": ("category", False),
        "vip": ("boolean", False),
    }
    assert manifest.onnx
    assert manifest.environment and "pandas" in manifest.environment.packages


def test_predict_answers_the_file_as_the_estimator_does(folder: Path) -> None:
    answers = page.run(command("notebook/bin/iris-model predict "), folder).split()
    frame = pd.read_csv(folder / "customers.csv", dtype={"zip": str})
    expected = joblib.load(folder / "model.joblib").predict(frame).tolist()
    assert answers == ["prediction,left", *(f"{each},{each}" for each in expected)]
    assert {"yes", "no"} == set(expected)


def test_serve_answers_the_pages_own_curl(folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    serve, curl = command("notebook/bin/iris-model serve "), command("curl ")
    # Somebody may have the port of the page.
    with page.serving(f"{serve} --port {port}", folder) as server:
        answer = json.loads(page.run(f"{curl.replace(':8000/', f':{port}/')} --silent --fail", folder))
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
    assert answer["left"] == "yes"
    assert sum(answer["prediction_proba"]) == pytest.approx(1)
