"""Passwords and certificates are replaced while clients go on asking, and none of them is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from testinfra.host import Host

from tests.blackbox.gateway import IRIS
from tests.host.nginx import master, workers
from tests.operator import play

testinfra_hosts = ["ansible://gateway"]

PAUSE = 0.125
"""Seconds between two requests: below the limit, with room for what the test itself asks."""


class Changed:
    """The site with secrets that its playbooks replace: a copy, which leaves those of the other tests alone."""

    def __init__(self, inventory: str, secrets: Path) -> None:
        self.secrets = secrets
        self._inventory = inventory

    def play(self, name: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run a playbook on the copied secrets."""
        return play(self._inventory, f"playbooks/{name}.yml", fortress_secrets_dir=str(self.secrets), **variables)

    @property
    def password(self) -> str:
        """The newest one of the user."""
        return (self.secrets / "users" / os.environ["FORTRESS_USER"]).read_text().strip()

    @cached_property
    def given_back(self) -> subprocess.CompletedProcess[str]:
        """What was said when the host got back what it had, by the run that changes a gateway's settings."""
        own = str((Path(self._inventory) / "secrets").absolute())
        return play(
            self._inventory, "playbooks/gateway.yml", fortress_secrets_dir=own, fortress_replace_credentials=True
        )


@pytest.fixture(scope="module")
def changed(inventory: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changed]:
    """One for all tests that replace something, one after the other; at the end the host has what it had."""
    secrets = shutil.copytree(Path(inventory) / "secrets", tmp_path_factory.mktemp("site") / "secrets")
    changed = Changed(inventory, secrets)
    yield changed
    assert changed.given_back.returncode == 0, changed.given_back.stdout


def predict(password: str, client: httpx.Client | None = None) -> httpx.Response:
    """Request a prediction, over a connection of its own unless a client keeps one."""
    trust = ssl.create_default_context(cafile=os.environ["FORTRESS_CA"])
    with httpx.Client(verify=trust) if client is None else _kept(client) as one:
        login = (os.environ["FORTRESS_USER"], password)
        return one.post(f"{os.environ['FORTRESS_URL']}/predict", json=IRIS, auth=login, timeout=20)


@contextmanager
def _kept(client: httpx.Client) -> Iterator[httpx.Client]:
    yield client


@contextmanager
def asking(password: str) -> Iterator[list[int | str]]:
    """Send requests all the time, in turn over new connections and over a kept one; collect the statuses."""
    statuses: list[int | str] = []
    enough = threading.Event()

    def ask() -> None:
        with httpx.Client(verify=ssl.create_default_context(cafile=os.environ["FORTRESS_CA"]), http2=True) as kept:
            while not enough.wait(PAUSE):
                try:
                    statuses.append(predict(password, kept if len(statuses) % 2 else None).status_code)
                except httpx.HTTPError as error:
                    # A reload ends HTTP/2 connections in good order: by GOAWAY without an error nginx says that it
                    # answers what is under way, but this client no longer reads that.
                    if "ConnectionTerminated error_code:0" not in str(error):
                        statuses.append(repr(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        enough.set()
        thread.join()


def slow(password: str) -> httpx.Response:
    time.sleep(PAUSE)
    return predict(password)


@pytest.mark.one_release
def test_a_password_is_replaced_and_clients_have_time_to_change_over(host: Host, changed: Changed) -> None:
    user, old, secrets = os.environ["FORTRESS_USER"], changed.password, changed.secrets
    pid, running = master(host), workers(host)

    with asking(old) as statuses:
        done = changed.play("rotate-credentials")
    assert done.returncode == 0, done.stdout
    assert set(statuses) == {200}, statuses
    assert len(statuses) > 10
    assert f"The previous password of {user} works until 2" in " ".join(done.stdout.split())

    new = changed.password
    assert new != old
    assert f"export FORTRESS_PASSWORD={new}\n" in (secrets / "fortress.env").read_text()
    for password in (old, new):
        assert password not in done.stdout
        response = slow(password)
        assert response.status_code == 200, password
        assert "www-authenticate" not in response.headers
    refused = slow("wrong" + new)
    assert refused.status_code == 401
    assert len(refused.headers.get_list("www-authenticate")) == 1
    assert (master(host), workers(host)) == (pid, running), "nginx needs no reload for a password"

    lines = host.run("tail -n 40 /var/log/nginx/access.log").stdout.splitlines()
    # The last one was refused, after it had been compared with the previous password too.
    assert [json.loads(line)["password"] for line in lines if '"path":"/predict"' in line][-3:] == ["previous", "", ""]

    done = changed.play("rotate-credentials")
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout, done.stdout
    assert changed.password == new, "one rotation, one new password"

    with asking(new) as statuses:
        done = changed.play("retire-credentials")
    assert done.returncode == 0, done.stdout
    assert set(statuses) == {200}, statuses
    assert (slow(old).status_code, slow(new).status_code) == (401, 200)
    assert (master(host), workers(host)) == (pid, running)
    assert not list((secrets / "previous_passwords").iterdir())


@pytest.mark.one_release
@pytest.mark.parametrize(
    ("folder", "remembers", "options"),
    [("fresh", "as it is", ("--check",)), ("copied", "later", ()), ("fresh", "nothing", ())],
    ids=["a clone without secrets", "secrets from before a rotation", "no record, as of an earlier release"],
)
def test_a_run_that_would_replace_the_credentials_stops_before_it_changes_anything(
    host: Host, inventory: str, changed: Changed, tmp_path: Path, folder: str, remembers: str, options: tuple[str, ...]
) -> None:
    """Up to release 1.0.0 it replaced all passwords and the CA, in check mode those on the control node."""
    files = "/etc/nginx/fortress.htpasswd /etc/ssl/fortress/*"
    record = "/etc/fortress/site.fact"
    before, sums = host.file(record).content_string.strip(), host.check_output(f"sha256sum {files}")
    later = json.loads(before) | {"generation": json.loads(before)["generation"] + 1}
    texts = {"as it is": before, "later": json.dumps(later), "nothing": ""}
    used = changed.secrets if folder == "copied" else tmp_path / "of a new clone"
    host.run_expect([0], f"echo '{texts[remembers]}' > {record}" if texts[remembers] else f"rm {record}")
    try:
        done = play(inventory, "site.yml", *options, fortress_secrets_dir=str(used))
    finally:
        host.run_expect([0], f"echo '{before}' > {record}")
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    generation = f"the host has generation {later['generation']} of this site's credentials"
    assert (generation if remembers == "later" else f"{used} holds none") in said, said
    assert "-e fortress_replace_credentials=true" in said
    assert not re.search("changed=[1-9]", said.split("PLAY RECAP")[1])
    assert used == changed.secrets or not used.exists()
    assert host.check_output(f"sha256sum {files}") == sums


@pytest.mark.one_release
def test_a_certificate_is_renewed_while_clients_ask(host: Host, changed: Changed) -> None:
    def served() -> x509.Certificate:
        pem = ssl.get_server_certificate(
            (os.environ["FORTRESS_HOST"], 443), ca_certs=os.environ["FORTRESS_CA"], timeout=20
        )
        return x509.load_pem_x509_certificate(pem.encode())

    def names(certificate: x509.Certificate) -> list[str]:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return found.value.get_values_for_type(x509.DNSName)

    before, pid = served(), master(host)
    with asking(changed.password) as statuses:
        done = changed.play("renew-certificates", pki_dns_names=[*names(before), "added.fortress.test"])
    assert done.returncode == 0, done.stdout
    assert set(statuses) == {200}, statuses
    after = served()
    assert names(after) == [*names(before), "added.fortress.test"]
    assert after.serial_number != before.serial_number
    assert after.public_key() != before.public_key()
    assert f"serves certificate {after.serial_number:x}" in " ".join(done.stdout.split())
    after.verify_directly_issued_by(x509.load_pem_x509_certificate(Path(os.environ["FORTRESS_CA"]).read_bytes()))
    assert master(host) == pid

    # By any run, and not by that playbook alone, which waits: on disk and not reloaded is what people run into most.
    assert changed.given_back.returncode == 0, changed.given_back.stdout
    deadline = time.monotonic() + 10
    while served() != before:
        assert time.monotonic() < deadline, "nginx does not serve what is on its disk"
        time.sleep(0.3)
    assert master(host) == pid
