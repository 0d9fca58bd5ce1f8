"""The newest Ansible, on Debian 13's Python, makes a site of a bare host as .venv's does: `make test-ansible`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from testinfra.host import Host

from tests import ROOT
from tools.remote import Hosts, ssh

testinfra_hosts = ["ansible://newest-control"]

LOCK = ROOT / "requirements" / "newest.txt"
PYTHON = "3.13"
# The settings of a site that anybody has, but for Grafana's repository, which may be out of reach.
INVENTORY = """
all:
  hosts:
    site: {{ansible_host: {address}, ansible_user: debian}}
  vars:
    fortress_grafana_when_unreachable: skip
  children:
    gateway: {{hosts: {{site: }}}}
    api: {{hosts: {{site: }}}}
    monitoring: {{hosts: {{site: }}}}
"""
# As `make` has it: a host may have no locale of the user's own.
PROGRAM = "PYTHONPATH=$HOME/packages python3 $HOME/packages/bin/ansible-playbook"
RUN = f"cd fortress && LC_ALL=C.UTF-8 {PROGRAM} -i inventory/prod"

Play = Callable[..., str]


@pytest.fixture(scope="module")
def play(host: Host, inventory: str, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Make the first host a control node of this very tree; return what runs a playbook there."""
    reach = Hosts(inventory).reach()
    control, site = reach["newest-control"], reach["newest-site"]
    key = Path(site["ansible_ssh_private_key_file"])

    def send(folder: Path, names: str, target: str) -> None:
        """Send files of a folder, whose names come from a command, each ended by a zero byte."""
        command = f"{names} | tar --create --null --no-recursion --files-from=-"
        packed = subprocess.run(["sh", "-c", command], cwd=folder, stdout=subprocess.PIPE, check=True).stdout
        unpack = f"mkdir -p {target} && tar --extract --directory={target}"
        subprocess.run([*ssh("newest-control", control), unpack], input=packed, check=True)

    packages = tmp_path_factory.mktemp("packages")
    uv = [str(ROOT / ".venv/bin/uv"), "pip", "install", "--quiet", "--no-config", "--no-deps", "--require-hashes"]
    target = [f"--target={packages}", f"--python-version={PYTHON}", "--python-platform=x86_64-manylinux_2_36"]
    subprocess.run([*uv, "--only-binary=:all:", *target, f"--requirements={LOCK}"], check=True)
    send(packages, "find . -type f -print0", "packages")
    # As `ansible-galaxy collection install -r requirements.yml` would bring it.
    (own,) = (ROOT / ".venv" / "lib").glob("python3*/site-packages")
    send(own, "find ansible_collections/community/crypto -type f -print0", ".ansible/collections")
    send(ROOT, "git ls-files -z --cached --others --exclude-standard", "fortress")
    build = ["tools/build-release", f"--python={PYTHON}", "--machine=x86_64", "--model=models/iris/1.0.0"]
    built = json.loads(subprocess.check_output([sys.executable, *build], cwd=ROOT, text=True))
    for artifact in ("release", "model", "program"):
        archive = Path(built[artifact]["archive"]).resolve()
        send(archive.parent, f"printf '%s\\0' {archive.name}", f"fortress/.cache/{archive.parent.name}")
    apt = "sudo apt-get --quiet=2"
    host.check_output(f"{apt} update && {apt} install --no-install-recommends openssh-client curl ca-certificates")
    (packages / "hosts.yml").write_text(INVENTORY.format(address=site["ansible_host"]))
    send(packages, "printf 'hosts.yml\\0'", "fortress/inventory/prod")
    send(key.parent, f"printf '%s\\0' {key.name} known_hosts", ".ssh")

    def played(*words: str) -> str:
        done = host.run(f"{RUN} {' '.join(words)}")
        assert done.rc == 0, done.stdout + done.stderr
        assert "DEPRECATION" not in done.stdout + done.stderr
        assert "[WARNING]" not in done.stderr, done.stderr
        return str(done.stdout)

    return played


def changed(said: str) -> int:
    """Return how many tasks have changed something, of a run of one host."""
    (recap,) = re.findall(r"^site +: .*$", said, re.MULTILINE)
    assert "failed=0" in recap
    return int(re.search(r"changed=(\d+)", recap)[1])  # type: ignore[index]


def serves(host: Host, model: str) -> bool:
    """Return whether the gateway answers for a model, asked from the control node."""
    said: str = host.check_output(
        "cd fortress/inventory/prod/secrets && . ./fortress.env && curl --silent --output /dev/null "
        '--write-out "%{http_code}" --cacert "$FORTRESS_CA" '
        f'--user "$FORTRESS_USER:$FORTRESS_PASSWORD" "$FORTRESS_URL/v2/models/{model}"'
    )
    assert said in ("200", "404"), said
    return said == "200"


def test_it_is_the_newest(host: Host, play: Play) -> None:
    said = host.check_output(f"{RUN} --version")
    assert "[core 2.21." in said, said
    assert play("site.yml", "--syntax-check")


def test_check_mode_passes_on_a_bare_host_and_changes_nothing(inventory: str, play: Play) -> None:
    play("site.yml", "--check")
    site = Hosts(inventory).reach("newest-site")["newest-site"]
    found = subprocess.run(
        [*ssh("newest-site", site), "ls -d /opt/iris-api /etc/nginx"], capture_output=True, check=False
    )
    assert found.stdout == b""


def test_a_converge_makes_the_site_and_a_second_one_changes_nothing(host: Host, play: Play) -> None:
    assert changed(play("site.yml")) > 30
    assert serves(host, "iris")
    assert changed(play("site.yml")) == 0
    assert changed(play("site.yml", "--check")) == 0
    play("playbooks/verify.yml")


def test_a_model_is_deployed_and_rolled_back(host: Host, play: Play) -> None:
    assert changed(play("playbooks/deploy.yml", "-e fortress_model_name=wine")) > 0
    assert serves(host, "wine") and not serves(host, "iris")
    play("playbooks/rollback.yml")
    assert serves(host, "iris")


def test_credentials_are_renewed(host: Host, play: Play) -> None:
    for playbook in ("rotate-credentials", "renew-certificates"):
        play(f"playbooks/{playbook}.yml")
        assert serves(host, "iris")


def test_the_site_is_removed(inventory: str, play: Play) -> None:
    play("playbooks/remove.yml", "-e remove_site=iris.fortress.test")
    site = Hosts(inventory).reach("newest-site")["newest-site"]
    assert subprocess.run([*ssh("newest-site", site), "test ! -e /opt/iris-api"], check=False).returncode == 0
