"""Certificates and passwords are replaced under load."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.traffic import Load, Record
from tests.operator import play

testinfra_hosts = ["ansible://gateway"]

Playbook = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def secrets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the site's secrets, in which they are replaced; at the end the host gets back what it had."""
    inventory = str(request.config.fortress_inventory)  # type: ignore[attr-defined]
    yield Path(shutil.copytree(Path(inventory) / "secrets", tmp_path_factory.mktemp("site") / "secrets"))
    done = play(inventory, "playbooks/gateway.yml", fortress_replace_credentials=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def playbook(inventory: str, secrets: Path) -> Playbook:
    return lambda name: play(inventory, f"playbooks/{name}.yml", fortress_secrets_dir=str(secrets))


def served() -> str:
    """The certificate that clients get."""
    return ssl.get_server_certificate((os.environ["FORTRESS_HOST"], 443), timeout=20)


def test_a_certificate_is_renewed(load: Load, record: Record, playbook: Playbook) -> None:
    before = served()
    with load() as traffic:
        done = playbook("renew-certificates")
    assert done.returncode == 0, done.stdout
    assert served() != before
    record("renewal of the certificate", traffic, None)
    traffic.assert_nothing_failed()


def test_a_clone_without_the_secrets_replaces_nothing(
    load: Load, record: Record, inventory: str, tmp_path: Path
) -> None:
    with load() as traffic:
        done = play(inventory, "site.yml", fortress_secrets_dir=str(tmp_path / "of a new clone"))
    assert done.returncode != 0
    assert "was provisioned with credentials from another secrets folder" in " ".join(done.stdout.split())
    record("a converge from a clone without the secrets", traffic, None, "it stops before the first change")
    traffic.assert_nothing_failed()


def test_a_password_is_replaced(load: Load, record: Record, playbook: Playbook) -> None:
    """Clients that still have the old one go on."""
    with load() as traffic:
        done = playbook("rotate-credentials")
    assert done.returncode == 0, done.stdout
    record("rotation of the password, clients with the old one", traffic, None)
    traffic.assert_nothing_failed()


def test_the_old_password_ends(load: Load, record: Record, playbook: Playbook, secrets: Path) -> None:
    """Clients that have changed over go on."""
    user = os.environ["FORTRESS_USER"]
    new = (secrets / "users" / user).read_text().strip()
    assert new != os.environ["FORTRESS_PASSWORD"]
    with load(password=new) as traffic:
        done = playbook("retire-credentials")
    assert done.returncode == 0, done.stdout
    record("end of the old password, clients with the new one", traffic, None)
    traffic.assert_nothing_failed()
