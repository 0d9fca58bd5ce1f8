"""How the role iris_api brings a deployment to a host, and what it tells the program that deploys there."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from iris_deploy.host import Settings

from tests import ROOT
from tests.controller import render


def task(phase: str, name: str) -> dict[str, Any]:
    """Return a task of a phase of the role, also one in a block."""
    contents = yaml.safe_load((ROOT / "roles" / "iris_api" / "tasks" / f"{phase}.yml").read_text())
    [found] = [each for entry in contents for each in entry.get("block", [entry]) if each["name"] == name]
    return dict(found)


def command(arguments: dict[str, Any], **variables: Any) -> list[str]:
    """Return the command that a task runs."""
    argv = next(arguments[module]["argv"] for module in ("program", "ansible.builtin.command") if module in arguments)
    templar = Templar(DataLoader(), variables)
    if isinstance(argv, str):
        return list(templar.template(trust_as_template(argv)))
    return [templar.template(trust_as_template(each)) for each in argv]


@pytest.mark.parametrize(
    ("checks", "again", "options"),
    [
        (False, False, ["--converge"]),
        (False, True, ["--again"]),
        (True, False, ["--converge", "--dry-run"]),
        (True, True, ["--again", "--dry-run"]),
    ],
)
def test_check_mode_deploys_nothing(checks: bool, again: bool, options: list[str]) -> None:
    """The command runs in check mode too: it says what would happen."""
    deploys = task("rollout", "Roll the deployment out, one instance after the other")
    known = {
        "_iris_api_deployer": "ana@laptop",
        "iris_api_redeploy": again,
        "iris_api_is_inventory": False,
        "ansible_check_mode": checks,
    }
    assert command(deploys, **known) == [
        "/usr/local/sbin/iris-deploy",
        "--json",
        "deploy",
        "--who",
        "ana@laptop",
        *options,
    ]
    assert deploys["check_mode"] is False
    # `make deploy` without MODEL and APP.
    assert "--inventory" in command(deploys, **known | {"iris_api_is_inventory": True})


@pytest.mark.parametrize(
    ("answer", "kinds"),
    [
        ('{"missing": []}', []),
        ('{"missing": ["models"]}', ["models"]),
        # A fresh host, in check mode; or a program of an earlier release.
        ("", ["releases", "models"]),
        ('{"failed": true, "message": "root is needed"}', ["releases", "models"]),
    ],
)
@pytest.mark.parametrize("brings", [False, True], ids=["release alone", "own environment"])
def test_what_is_missing_or_damaged_is_uploaded_and_prepared(answer: str, kinds: list[str], brings: bool) -> None:
    names = ("release", "model", "environment")
    artifacts: dict[str, Any] = {name: {"id": f"{name}-1", "archive": f"/cache/{name}-1.tar"} for name in names}
    if not brings:
        artifacts["environment"] = None
    elif "missing" not in answer:
        kinds = [*kinds, "environments"]
    private = yaml.safe_load((ROOT / "roles" / "iris_api" / "vars" / "main.yml").read_text())
    missing = Templar(
        DataLoader(), {"_iris_api_artifacts": artifacts, "__iris_api_present": {"stdout": answer}}
    ).template(trust_as_template(private["_iris_api_missing"]))
    assert [each["kind"] for each in missing] == kinds
    prepares = task("prepare", "Prepare what was uploaded")
    uploads = task("upload", "Upload what is missing")
    assert uploads["loop"] == prepares["loop"] == "{{ _iris_api_missing }}"
    for item in missing:
        argv = command(prepares, item=item, _iris_api_home="/opt/iris-api")
        assert argv[:4] == ["/usr/local/sbin/iris-deploy", "--json", "install", item["kind"]]
        assert argv[4:] == [item["artifact"]["id"], f"/opt/iris-api/uploads/{item['artifact']['id']}.tar"]


def test_nobody_logs_in_as_the_user_of_the_instances() -> None:
    user = task("install", "Create the user that the instances run as")["ansible.builtin.user"]
    assert (user["shell"], user["home"], user["create_home"]) == ("/usr/sbin/nologin", "/nonexistent", False)
    assert user["system"] is True


def test_what_belongs_to_root_is_written_by_root_alone() -> None:
    """Root runs the program, and makes of the archives what the instances run from."""
    assert task("configure", "Upload the deployment program")["ansible.builtin.copy"]["mode"] == "0755"
    uploads = task("upload", "Upload what is missing")["ansible.builtin.copy"]
    # The folder's parent is that of all releases, which the instances read.
    assert (uploads["mode"], uploads["directory_mode"]) == ("0600", "0755")


def test_the_program_is_told_how_to_deploy() -> None:
    told = json.loads(
        render(
            "iris_api",
            "etc/iris-api/deploy.json",
            iris_api_instances=2,
            iris_api_base_port=9001,
            iris_api_bind_address="192.0.2.7",
            iris_api_clients=["192.0.2.8"],
            iris_api_keep_deployments=7,
            iris_api_deploy_timeout=90,
            iris_api_deploy_settle=4,
            iris_api_check_memory=False,
        )
    )
    assert Settings.read(json.dumps(told)) == Settings(2, 7, 90, 4, False, 9001, "192.0.2.7", ("192.0.2.8",))


@pytest.mark.parametrize(
    ("phase", "name", "registered"),
    [
        ("prepare", "Check that it is prepared", "item"),
        ("restore", "Check that they are restored", "__iris_api_restore"),
        ("rollout", "Check that the deployment went through", "__iris_api_deploy"),
        ("contract", "Check that it went through", "__iris_api_contract"),
    ],
)
def test_why_iris_deploy_failed_is_never_empty(phase: str, name: str, registered: str) -> None:
    """Where it is not there it says nothing, and Ansible does."""
    message = task(phase, name)["ansible.builtin.fail"]["msg"]
    absent = {"rc": 2, "stdout": "", "stderr": "", "msg": "Error executing command."}
    for result, outcome, why in (
        (absent, {}, "iris-deploy could not be run: Error executing command."),
        (absent | {"stderr": "Traceback", "msg": "non-zero return code"}, {}, "Traceback"),
        (absent | {"stdout": '{"message": "It is held."}'}, {"message": "It is held."}, "It is held."),
    ):
        templar = Templar(DataLoader(), {registered: result, "_iris_api_outcome": outcome})
        assert templar.template(trust_as_template(message)).strip() == why
