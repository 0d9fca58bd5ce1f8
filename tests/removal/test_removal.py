"""`make remove` on a provisioned host: it is as it was before, but for what the removal itself has said."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests import ROOT
from tests.operator import play

testinfra_hosts = ["ansible://api"]

State = dict[str, list[str]]
FOREIGN = "/etc/nginx/conf.d/foreign.conf"
# Copies of files that programs make when they write them anew, apt's file of marks, which are compared with packages,
# and the time of day.
NOISE = re.compile(
    r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)- |/var/lib/dpkg/status-old |/var/lib/apt/extended_states "
    r"|/var/lib/apt/periodic"
    r"|/etc/ld\.so\.cache |session-c?[0-9]+\.scope|systemd-(hostnamed|timedated|localed)\.service"
    r"|/var/lib/systemd/(random-seed|timesync|coredump|linger|timers/stamp-(apt|dpkg|fstrim|e2scrub))"
)
# Said by the removal: path or name, and the words by which it does.
SAID = {"/var/lib/apt/lists": "/var/lib/apt/lists", "/etc/nginx": f"{FOREIGN}: it is not"}


def state(host: Host) -> State:
    """Return what a host is like, by the program that looked at it before it was provisioned."""
    program = (ROOT / "tests" / "removal" / "host_state.py").read_text()
    done = host.run(f"python3 - <<'END_OF_PROGRAM'\n{program}\nEND_OF_PROGRAM")
    assert done.rc == 0, done.stderr
    return dict(json.loads(done.stdout))


def differences(before: State, after: State) -> list[str]:
    """Return the lines of the one and not of the other: `files - /etc/demo ...` is gone, `files + ...` is new."""
    found = []
    for part in before:
        found += [f"{part} - {line}" for line in sorted({*before[part]} - {*after[part]})]
        found += [f"{part} + {line}" for line in sorted({*after[part]} - {*before[part]})]
    return [line for line in found if not NOISE.search(line)]


def told(line: str, said: str) -> bool:
    """Return whether the removal has said this difference."""
    return any(line.split()[2].startswith(path) and words in said for path, words in SAID.items())


@pytest.fixture
def before(host: Host, inventory: str) -> State:
    """What the host was like when Molecule had prepared it."""
    file = Path(inventory) / "secrets" / f"before-{host.backend.get_hostname()}.json"
    if not file.exists():
        pytest.skip(f"there is no {file}: nobody looked at this host before it was provisioned")
    return dict(json.loads(file.read_text()))


@pytest.fixture
def site(inventory: str) -> dict[str, Any]:
    """The answer to the question whether the removal is meant."""
    return {"remove_site": os.environ["FORTRESS_DOMAIN"]}


@pytest.mark.one_release
def test_nothing_goes_unless_the_site_is_named(host: Host, inventory: str) -> None:
    done = play(inventory, "playbooks/remove.yml", remove_site="another.example.com")
    assert done.returncode != 0
    assert "Nothing was removed. The site on" in " ".join(done.stdout.split())
    assert host.service("nginx").is_running


def test_a_host_is_left_as_it_was_before(host: Host, inventory: str, before: State, site: dict[str, Any]) -> None:
    """With things of somebody else's on it by now, a service that is stopped, and a firewall whose unit fails."""
    provisioned = state(host)
    assert len(differences(before, provisioned)) > 100, "the comparison sees nothing"
    host.check_output("mkdir --parents /run/nft-copy")
    host.check_output("cp /usr/sbin/nft $(ldd /usr/sbin/nft | grep --only-matching '/[^ ]*') /run/nft-copy")
    host.check_output(f"echo '# theirs' > {FOREIGN}")
    host.check_output("nft add table inet foreign")
    # By then the firewall's unit has nothing to stop, and fails.
    host.check_output("systemctl stop prometheus && nft delete table inet fortress")

    would = play(inventory, "playbooks/remove.yml", "--check")
    assert would.returncode == 0, would.stdout
    assert host.service("nginx").is_running
    assert host.file("/opt/iris-api").exists

    begun = time.monotonic()
    done = play(inventory, "playbooks/remove.yml", **site)
    took = time.monotonic() - begun
    assert done.returncode == 0, done.stdout
    said = " ".join(done.stdout.split())
    print(said[said.index("is left with") :], f"{took:.0f} s")

    after = state(host)
    assert (before.pop("nftables"), after.pop("nftables")) == ([], ["table inet foreign {", "}"])
    assert host.file(FOREIGN).content_string == "# theirs\n"
    assert [line for line in differences(before, after) if not told(line, said)] == []


@pytest.mark.usefixtures("before")
def test_what_has_gone_is_not_removed_twice(inventory: str, site: dict[str, Any]) -> None:
    done = play(inventory, "playbooks/remove.yml", **site)
    assert done.returncode == 0, done.stdout
    assert "has nothing of Fortress. Nothing is changed there." in " ".join(done.stdout.split())
    assert re.search(r"changed=0 ", done.stdout)


@pytest.mark.one_release
def test_the_site_can_come_back(inventory: str) -> None:
    """Nothing that is left is in the way of another first run: a preflight looks whether the host is free."""
    done = play(inventory, "site.yml", "--check", "--tags", "preflight")
    assert done.returncode == 0, done.stdout
