"""A site is kept while it serves, its only host is lost, and another control node makes the same of a fresh one."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from testinfra.host import Host

from tests import ROOT
from tests.controller import environment
from tests.faults.traffic import Load, Record, wait_until_whole
from tests.operator import deploy, history, play, ready, rollback
from tests.several import localvm
from tools.remote import Hosts

testinfra_hosts = ["ansible://gateway"]

DATABASE = "/var/lib/grafana/grafana.db"
# Where Grafana is not to be had its stand-in has no database: then this is all that is in it.
WRITES = f"""
import sqlite3, time
database = sqlite3.connect("{DATABASE}")
database.execute("DROP TABLE IF EXISTS fortress_test")
database.execute("CREATE TABLE fortress_test (number INTEGER)")
for number in range(10_000):
    with database:
        database.execute("INSERT INTO fortress_test VALUES (?)", (number,))
    time.sleep(0.02)
"""
READ = f"""
import sqlite3
database = sqlite3.connect("file:{DATABASE}?mode=rw", uri=True)
assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
print(database.execute("SELECT count(*), max(number) FROM fortress_test").fetchone())
"""
UP = 'up{job="iris-api"}'
LONG_AGO = int(time.time()) - 6 * 3600
IRIS = {"petal_length": 6.5, "petal_width": 0.8}


@dataclass
class Kept:
    """Where the archive is put, and a moment before it was written."""

    folder: Path
    moment: float = 0


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept(tmp_path_factory.mktemp("kept"))


def certificate(host: str) -> str:
    """Return the sha256 of the certificate that a gateway shows."""
    return hashlib.sha256(ssl.get_server_certificate((host, 443)).encode()).hexdigest()


def samples(host: Host, query: str, at: float) -> list[Any]:
    """Return what Prometheus knows at a moment, by instance."""
    url = f"http://127.0.0.1:9090/api/v1/query?query={quote(query)}&time={at:.3f}"
    found = json.loads(host.check_output("curl --silent --fail %s", url))["data"]["result"]
    return sorted((series["metric"].get("instance"), series["value"][1]) for series in found)


def write_block(host: Host, at: float) -> None:
    """Give Prometheus a finished block, as it writes them every two hours."""
    text = f"# TYPE fortress_test gauge\nfortress_test 41 {at - 60:.0f}\nfortress_test 42 {at:.0f}\n# EOF\n"
    host.check_output(
        "cd /var/lib/prometheus && printf %s > /run/fortress-test"
        " && promtool tsdb create-blocks-from openmetrics /run/fortress-test metrics2"
        " && chown -R --reference=. metrics2 && systemctl restart prometheus",
        text,
    )


def python(host: Host, program: str) -> str:
    return str(host.check_output("python3 -c %s", program)).strip()


def test_a_backup(host: Host, inventory: str, load: Load, record: Record, kept: Kept) -> None:
    """Of another model than the inventory's, while Grafana writes; nothing is left on the host."""
    done = deploy(inventory, "-e", "fortress_model_name=iris-forest")
    assert done.returncode == 0, done.stdout
    write_block(host, LONG_AGO)
    writer = f"systemd-run --quiet --unit=grafana-writes --uid=grafana python3 -c {shlex.quote(WRITES)}"
    assert host.run(writer).rc == 0
    with load() as traffic:
        traffic.strike()
        begin, kept.moment = time.monotonic(), time.time()
        done = play(inventory, "playbooks/backup.yml", backup_to=str(kept.folder))
        took = time.monotonic() - begin
    assert done.returncode == 0, done.stdout
    host.run("systemctl stop grafana-writes")
    [path] = kept.folder.iterdir()
    print(f"{path.stat().st_size / 1e6:.1f} MB in {took:.1f} s")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "IT HOLDS PASSWORDS AND PRIVATE KEYS" in done.stdout
    assert not host.file("/var/lib/fortress/backup").exists
    assert not host.file("/var/lib/prometheus/.fortress-backup").exists
    record("backup", traffic, None)
    traffic.assert_nothing_failed()


def clone(folder: Path) -> Path:
    """Make a clone of the project, as it is here, on another control node; what was built here is shared."""
    folder.mkdir()
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        # It copies a link to a folder, too, as a link.
        shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    (folder / ".cache").symlink_to((ROOT / ".cache").resolve())
    return folder


def restore(project: Path, archive: Path, sockets: str, *arguments: str) -> tuple[int, str]:
    """Run `make restore` there; return its exit code and what it said, in one line."""
    given = {
        name: value for name, value in environment().items() if not name.startswith(("MAKE", "MFLAGS", "ANSIBLE_"))
    }
    done = subprocess.run(
        ["make", "restore", f"FROM={archive}", "INVENTORY=restored", *arguments],
        cwd=project,
        env=given | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, " ".join(done.stdout.split())


@pytest.fixture
def sockets() -> Iterator[str]:
    """A folder for the connections of another control node, which has none of this one's; a socket's path is short."""
    with tempfile.TemporaryDirectory(prefix="ssh-", dir="/tmp") as folder:
        yield folder


def lose(host: Host, inventory: str) -> None:
    """Destroy the machine, and boot a fresh one at its address."""
    name = host.backend.host
    reach = Hosts(inventory).reach()[name]
    secrets = Path(reach["ansible_ssh_private_key_file"]).parent
    release = "trixie" if host.run("grep -q trixie /etc/os-release").rc == 0 else "bookworm"
    localvm("down", name)
    key, known = f"--authorized-key={secrets / 'id_ed25519.pub'}", f"--known-hosts={secrets / 'known_hosts'}"
    localvm("up", name, f"--release={release}", f"--address={reach['ansible_host']}", key, known)
    # The test's own connection is to the machine that is gone.
    for _ in range(30):
        try:
            if host.run("true").rc == 0:
                return
        except RuntimeError:
            time.sleep(1)
    pytest.fail("the fresh machine can't be reached")


def test_a_restore(host: Host, inventory: str, kept: Kept, tmp_path: Path, sockets: str) -> None:
    [archive] = kept.folder.iterdir()
    told, before = history(host), certificate(os.environ["FORTRESS_HOST"])
    deployment = ready(host, 1)["deployment"]
    known, rows = samples(host, UP, kept.moment), python(host, READ)
    assert len(known) == 3
    lose(host, inventory)
    assert not host.file("/opt/iris-api").exists
    # Where the vendor's repository can't be reached; the fresh host has another stand-in for it.
    done = play(inventory, "molecule/shared/prepare.yml")
    assert done.returncode == 0, done.stdout

    project = clone(tmp_path / "another control node")
    code, said = restore(project, archive, sockets)
    assert code != 0 and "has another SSH key than the host before it" in said, said
    restored, here = project / "inventory" / "restored", Path(inventory)
    shutil.copy(here / "secrets" / "ssh" / "known_hosts", restored / "secrets" / "ssh" / "known_hosts")
    standin = Path("host_vars", host.backend.host, "grafana_standin.yml")
    differs = (here / standin).exists()
    if differs:
        shutil.copy(here / standin, restored / standin)
        code, said = restore(project, archive, sockets)
        assert code != 0 and f"differs from that of the backup in {standin}. Say which is meant" in said, said
    begin = time.monotonic()
    code, said = restore(project, archive, sockets, *(["USE=here"] if differs else []))
    assert code == 0, said
    print(f"restored in {time.monotonic() - begin:.1f} s")
    wait_until_whole(host)

    assert certificate(os.environ["FORTRESS_HOST"]) == before
    trust = ssl.create_default_context(cafile=os.environ["FORTRESS_CA"])
    login = (os.environ["FORTRESS_USER"], os.environ["FORTRESS_PASSWORD"])
    with httpx.Client(base_url=os.environ["FORTRESS_URL"], verify=trust, timeout=5) as client:
        answers = [client.post("/predict", json=IRIS, auth=login) for _ in range(9)]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["model"] for answer in answers} == {"iris-forest"}
        assert client.post("/predict", json=IRIS, auth=(login[0], "another")).status_code == 401
    assert [ready(host, number)["deployment"] for number in (1, 2, 3)] == [deployment] * 3
    now = history(host)
    assert now[: len(told)] == told
    # Nothing else was served on the way.
    assert {event["deployment"] for event in now[len(told) :]} == {deployment}
    # What was in its log, and what was in a block.
    assert samples(host, UP, kept.moment) == known
    assert samples(host, "fortress_test", LONG_AGO) == [(None, "42")]
    count, last = (int(number) for number in python(host, READ).strip("()").split(","))
    assert 0 < count == last + 1 <= int(rows.strip("()").split(",")[0])
    assert host.file(DATABASE).user == "grafana"

    code, said = restore(project, archive, sockets, *(["USE=here"] if differs else []))
    assert code != 0 and "lives and is of this site: a restore is for a fresh host, and nothing was changed" in said
    done = rollback(str(restored), "-e", "rollback_part=model")
    assert done.returncode == 0, done.stdout
    assert ready(host, 1)["model"] == "iris"
    # From the control node of before, too: it is the same site.
    done = play(inventory, "site.yml")
    assert done.returncode == 0, done.stdout
