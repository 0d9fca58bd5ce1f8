"""What happens on the control node when passwords are replaced: nothing is lost, and nothing is made twice."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT
from tests.controller import ansible, variable

OLD = "kT9xWq2LmZ7vRb4NsY8cDpOldOldOld1"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A site that was provisioned, and whose gateway can't be reached just now."""
    folder = Path(shutil.copytree(ROOT / "inventory" / "example", tmp_path / "prod"))
    hosts = yaml.safe_load((folder / "hosts.yml").read_text())
    hosts["all"]["hosts"]["iris"] = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    (folder / "secrets" / "users").mkdir(parents=True)
    (folder / "secrets" / "users" / "iris").write_text(f"{OLD}\n")
    return folder


def run(inventory: Path, playbook: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    name = f"playbooks/{playbook}.yml"
    # These would already find out that the gateway can't be reached.
    options = ["--skip-tags", "preflight,facts", "--extra-vars", json.dumps(variables)]
    return ansible("ansible-playbook", "-i", str(inventory), name, *options)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0
    return " ".join((done.stdout + done.stderr).split())


def current(inventory: Path) -> str:
    return (inventory / "secrets" / "users" / "iris").read_text().strip()


def kept(inventory: Path) -> dict[str, str]:
    file = inventory / "secrets" / "previous_passwords" / "iris"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def keep(inventory: Path, **content: str) -> None:
    folder = inventory / "secrets" / "previous_passwords"
    folder.mkdir(exist_ok=True)
    (folder / "iris").write_text(json.dumps({"password": OLD} | content))


def in_days(days: int) -> str:
    return f"{datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"


def test_a_rotation_that_does_not_reach_the_host_goes_on_where_it_stood(inventory: Path) -> None:
    done = run(inventory, "rotate-credentials")
    assert "UNREACHABLE" in refusal(done)
    new = current(inventory)
    assert new != OLD
    assert len(new) == 32
    assert new.isalnum()
    assert kept(inventory) == {"password": OLD}, "without an end, as long as the new one is not on every gateway"
    assert not {OLD, new} & set((done.stdout + done.stderr).split())
    for path in ("users/iris", "previous_passwords/iris"):
        assert (inventory / "secrets" / path).stat().st_mode & 0o777 == 0o600
    assert (inventory / "secrets" / "previous_passwords").stat().st_mode & 0o777 == 0o700

    assert "UNREACHABLE" in refusal(run(inventory, "rotate-credentials"))
    assert (current(inventory), kept(inventory)) == (new, {"password": OLD})


def test_a_rotation_cut_short_before_the_new_password_was_made_makes_it(inventory: Path) -> None:
    keep(inventory)
    run(inventory, "rotate-credentials")
    assert current(inventory) != OLD
    assert kept(inventory) == {"password": OLD}


def test_as_long_as_an_old_password_works_no_other_new_one_is_made(inventory: Path) -> None:
    (inventory / "secrets" / "users" / "iris").write_text("anotherNewPasswordOf32Characters\n")
    keep(inventory, until=in_days(1))
    done = run(inventory, "rotate-credentials")
    assert "its previous one still works" in " ".join(done.stdout.split())
    assert current(inventory) == "anotherNewPasswordOf32Characters"
    keep(inventory, until=in_days(-1))
    run(inventory, "rotate-credentials")
    assert kept(inventory) == {"password": "anotherNewPasswordOf32Characters"}
    assert current(inventory) != "anotherNewPasswordOf32Characters"


@pytest.mark.parametrize(
    ("until", "works"),
    [({}, True), ({"until": in_days(1)}, True), ({"until": in_days(-1)}, False), (None, False)],
    ids=["not ended", "for another day", "since yesterday no more", "never replaced"],
)
def test_the_gateway_is_told_of_an_old_password_until_its_end(
    inventory: Path, until: dict[str, str] | None, works: bool
) -> None:
    if until is not None:
        keep(inventory, **until)
    assert ("previous_password:" in variable(inventory, "nginx_basic_auth_users")) is works


def test_a_password_of_ones_own_is_replaced_by_oneself(inventory: Path) -> None:
    given = {"fortress_passwords": {"iris": "x" * 32}}
    message = refusal(run(inventory, "rotate-credentials", **given))
    assert "The password of iris stands in fortress_passwords" in message
    assert "fortress_previous_passwords" in message
    assert current(inventory) == OLD
    (inventory / "group_vars" / "all.yml").write_text(
        yaml.safe_dump(given | {"fortress_previous_passwords": {"iris": OLD}})
    )
    assert f"previous_password: {OLD}" in variable(inventory, "nginx_basic_auth_users")


def test_a_previous_password_of_ones_own_is_taken_away_by_oneself(inventory: Path) -> None:
    given = {"fortress_previous_passwords": {"iris": OLD}}
    message = refusal(run(inventory, "retire-credentials", retire_user="iris", **given))
    assert "remove it there and run `make converge`" in message


@pytest.mark.parametrize(
    ("playbook", "variables", "reason"),
    [
        ("rotate-credentials", {"rotate_user": "rosa"}, "There is no user rosa in fortress_users"),
        ("rotate-credentials", {"fortress_users": ["rosa"]}, "No password was made yet for rosa"),
        ("rotate-credentials", {"fortress_previous_password_days": 0}, "a whole number from 1 to 365"),
        ("rotate-credentials", {"fortress_previous_passwords": {"rosa": OLD}}, "who is not in fortress_users"),
        ("retire-credentials", {"retire_user": "rosa"}, "There is no user rosa in fortress_users"),
        ("retire-credentials", {}, "The rotation of iris has not reached its end"),
        ("renew-certificates", {"pki_certificate_file": "own.pem"}, "The certificate is your own (own.pem)"),
    ],
)
def test_what_can_not_be_done_is_refused_with_what_to_do(
    inventory: Path, playbook: str, variables: dict[str, Any], reason: str
) -> None:
    if playbook == "retire-credentials":
        keep(inventory)
    assert reason in refusal(run(inventory, playbook, **variables))
    assert current(inventory) == OLD
