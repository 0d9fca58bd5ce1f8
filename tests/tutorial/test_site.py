"""The tutorial's deployment on a running site: the model that its page trains and packs answers through the gateway."""

from __future__ import annotations

import json
from pathlib import Path

from testinfra.host import Host

from tests import operator
from tests.operator import ready
from tests.tutorial import page

testinfra_hosts = ["ansible://api"]

# What the site of these tests is in place of, or what another test does with the page's other half.
ELSEWHERE = (
    *("python3 -m venv ", "notebook/bin/pip ", "notebook/bin/iris-model predict ", "notebook/bin/iris-model serve "),
    *("curl ", "make up"),
)


def make(command: str, inventory: str, models: Path) -> str:
    """Run one of make's commands of the page on the site of these tests, with the models of the reader's folder."""
    done = operator.make(command, inventory, "-e", f"iris_api_models_dir={models}")
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_ten_commands_serve_the_readers_own_model(host: Host, inventory: str, tmp_path: Path) -> None:
    before = ready(host, 1)["deployment"]
    page.make_notebook(tmp_path)
    said = ""
    for command in page.to_a_site():
        if command.startswith("make ") and not command.startswith(ELSEWHERE):
            said = make(command, inventory, tmp_path / "models")
        elif not command.startswith(ELSEWHERE):
            page.run(command, tmp_path)
    # The last one is a prediction.
    assert json.loads(said.splitlines()[-1])["model"] == "churn"
    assert {(ready(host, instance)["model"], ready(host, instance)["engine"]) for instance in (1, 2, 3)} == {
        ("churn", "onnx")
    }
    # The page's way back, which is that of the test too.
    (back,) = [each for text in page.sections().values() for each in page.commands(text) if "make rollback" in each]
    make(back, inventory, tmp_path / "models")
    assert ready(host, 1)["deployment"] == before
