"""What every kind of test shares: where the running site is, and how its hosts are reached.

Tests on a host reach it as Ansible does; on a failure they print what an operator would look at first.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import testinfra
from testinfra.host import Host

from tests import ROOT
from tests.controller import Run, ansible, run_tasks
from tests.several import Cluster, several
from tools.remote import Hosts

UNITS = " ".join(
    f"--unit='{unit}'" for unit in ("iris-api@*", "nginx", "mtail", "prometheus*", "grafana-server", "init.scope")
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the two ways in known: FORTRESS_* to the tests, the inventory to Testinfra."""
    # Testinfra and the tests start Ansible's programs by name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    read_settings()
    resolve_inventory(config)


def read_settings() -> None:
    """Take FORTRESS_* from the file that `make env` prints, unless the shell has set them."""
    file = os.environ.get("FORTRESS_ENV_FILE")
    if not file:
        return
    for line in Path(file).read_text().splitlines():
        words = shlex.split(line)
        if len(words) == 2 and words[0] == "export":
            name, _, value = words[1].partition("=")
            os.environ.setdefault(name, value)


def resolve_inventory(config: pytest.Config) -> None:
    """Give Testinfra the inventory with its templates filled in: it takes `{{ inventory_dir }}` to the letter."""
    source = config.getoption("--ansible-inventory", default=None)
    if not source or getattr(config, "fortress_inventory", None):
        return
    config.fortress_inventory = str(source)  # type: ignore[attr-defined]
    folder = tempfile.TemporaryDirectory(prefix="fortress-tests-")
    config.add_cleanup(folder.cleanup)
    resolved = Path(folder.name) / "inventory.json"
    resolved.write_text(json.dumps(resolve(str(source), Path(folder.name))))
    config.option.ansible_inventory = str(resolved)


def resolve(source: str, folder: Path) -> dict[str, Any]:
    """Read an inventory as Ansible does; return its groups, and how each host is reached."""
    read = Hosts(source)
    hosts = read.reach()
    for reach in hosts.values():
        # One connection for all tests of a host instead of one for each command.
        shared = f"-o ControlMaster=auto -o ControlPersist=60 -o ControlPath={folder}/%C"
        reach["ansible_ssh_common_args"] = f"{reach.get('ansible_ssh_common_args', '')} {shared}".strip()
    groups = {name: {"hosts": dict.fromkeys(members)} for name, members in read.groups.items()}
    return {
        "all": {"hosts": hosts, "children": {name: groups[name] for name in groups if name not in ("all", "ungrouped")}}
    }


@pytest.fixture(scope="session")
def inventory(request: pytest.FixtureRequest) -> str:
    """The inventory as it was given."""
    return str(request.config.fortress_inventory)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """The hosts of a site of several."""
    options = request.config.option
    inventory = str(request.config.fortress_inventory)  # type: ignore[attr-defined]
    return several(inventory, options.ansible_inventory, sudo=options.sudo)


@pytest.fixture(scope="module")
def one_host(host: Host) -> None:
    """The instances and the gateway are on the host that monitors them."""
    # Not whether they run: a test that left them stopped must not make the next one pass.
    if not (host.file("/opt/iris-api/current").exists and host.service("nginx").exists):
        pytest.skip("gateway and instances are on other hosts")


@pytest.fixture
def clients(cluster: Cluster) -> Iterator[dict[str, httpx.Client]]:
    """A client of each gateway, by the gateway's name."""
    trust = ssl.create_default_context(cafile=os.environ["FORTRESS_CA"])
    login = (os.environ["FORTRESS_USER"], os.environ["FORTRESS_PASSWORD"])
    made = {
        name: httpx.Client(base_url=f"https://{cluster.addresses[name]}", verify=trust, auth=login, timeout=10)
        for name in cluster.groups["gateway"]
    }
    yield made
    for client in made.values():
        client.close()


@pytest.fixture
def play(tmp_path: Path) -> Run:
    """Run tasks as a role in the test's own folder."""
    return partial(run_tasks, tmp_path)


@pytest.fixture
def preflights(tmp_path: Path) -> Callable[..., list[str]]:
    """Run the preflight of a role on the control node; return what it said of each of several settings, if anything.

    Each is of a host of its own, so that one run of Ansible checks them all; named arguments are settings of all.
    """

    def run(role: str, *each: dict[str, Any], **shared: Any) -> list[str]:
        hosts = {f"host-{number}": settings for number, settings in enumerate(each)}
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
        task = {"ansible.builtin.include_role": {"name": role, "tasks_from": "preflight.yml"}}
        play = {"hosts": "all", "gather_facts": False, "vars": shared, "tasks": [task]}
        (tmp_path / "play.yml").write_text(json.dumps([play]))
        done = ansible("ansible-playbook", "-i", "hosts.json", "-c", "local", "play.yml", cwd=tmp_path)
        said = dict.fromkeys(hosts, "")
        for part in re.split(r"^(?=\S)", done.stdout, flags=re.MULTILINE):
            if found := re.match(r"fatal: \[([\w-]+)", part):
                # As YAML, where a text has an apostrophe twice.
                said[found[1]] = " ".join(part.replace("''", "'").split())
        assert bool(done.returncode) == any(said.values()), done.stdout + done.stderr
        return list(said.values())

    return run


@pytest.fixture
def preflight(preflights: Callable[..., list[str]]) -> Callable[..., str]:
    """Run the preflight of a role with some settings; return what it said, or nothing if it passed."""

    def run(role: str, **settings: Any) -> str:
        [said] = preflights(role, {}, **settings)
        return said

    return run


def unpacked(name: str) -> str:
    """Return a program that tools/control-node takes out of its Debian package, of this machine's release."""
    program = ROOT / ".cache" / name
    if not program.exists():
        pytest.skip(f"there is no {program}: tools/control-node could not download Debian's package")
    return str(program)


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own tool, which evaluates rules and queries over series that a test makes up."""
    return unpacked("promtool")


@pytest.fixture(scope="session")
def prometheus_server() -> str:
    """Prometheus itself."""
    return unpacked("prometheus")


@pytest.fixture(scope="session")
def amtool() -> str:
    """Alertmanager's own tool, which reads a configuration as Alertmanager does."""
    return unpacked("amtool")


@pytest.fixture(scope="session")
def mtail() -> str:
    """Debian's mtail, which reads logs."""
    return unpacked("mtail")


STARTED = pytest.StashKey[float]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Add to the report of a failed test what the hosts' journals have of our units since it began."""
    report = yield
    began = item.stash.setdefault(STARTED, call.start)
    if report.failed and report.when != "teardown":
        seconds = math.ceil(time.time() - began) + 1
        report.sections += [section for host in hosts_of(item) for section in journal(host, seconds)]
    return report


def hosts_of(item: pytest.Item) -> list[Host]:
    """Return the host of a test that runs on one; all of them for one that looks at the site from outside."""
    # Tests without one may call something else their host.
    if isinstance(host := getattr(item, "funcargs", {}).get("host"), Host):
        return [host]
    if not hasattr(item.config, "fortress_inventory"):
        return []
    options = item.config.option
    return list(testinfra.get_hosts(["ansible://all"], ansible_inventory=options.ansible_inventory, sudo=options.sudo))


def journal(host: Host, seconds: int) -> list[tuple[str, str]]:
    """Return as sections of a report which units have failed, and what our units logged in the last seconds."""
    sections = []
    for title, command in (
        ("failed units", "systemctl --failed --no-legend --plain"),
        (
            f"journal of the last {seconds} s",
            f"journalctl --no-pager --since=-{seconds}s --lines=80 -o short-iso {UNITS}",
        ),
    ):
        try:
            text = host.run(command).stdout
        except RuntimeError as error:
            text = f"the host could not be reached: {error}"
        sections.append((f"{host.backend.hostname}: {title}", text))
    return sections
