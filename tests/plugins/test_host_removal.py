"""What the roles have put on a host is taken off, what was there comes back, and what is somebody else's stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.plugins.loader import action_loader

from plugins.modules import config_tree, host_record
from plugins.modules.host_removal import Removal, RemovalError, remove_last, remove_role, run
from tests import ROOT

action_loader.add_directory(str(ROOT / "plugins" / "action"))
ACTION = sys.modules[action_loader.get("host_removal", class_only=True).__module__]
LISTS = ("units", "services", "paths", "unknown_without_record", "packages", "users", "tree")
DICTIONARIES = ("moved", "after", "in_use", "package_users", "package_folders")
NOTHING: dict[str, Any] = {name: [] for name in LISTS} | {name: {} for name in DICTIONARIES}
RECORD = {"packages": [], "manual": [], "units": {}, "active": [], "users": ["root"], "groups": ["root"], "folders": []}


class Machine:
    """A host in a folder; systemd and dpkg are not there, apt reckons with the packages that a test has made up."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ran: list[str] = []
        self.answers: dict[str, str] = {}
        for file in ("passwd", "group"):
            self.write(f"/etc/{file}", "root:x:0:\n")
        self.write("/var/lib/dpkg/status", "")
        for folder in ("var/lib/dpkg/info", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "etc/apt"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def write(self, path: str, text: str) -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def read(self, path: str) -> str | None:
        file = self.root / path.lstrip("/")
        return file.read_text() if file.exists() else None

    def configure(self, path: str, text: str) -> None:
        """Write a file as config_tree does, which keeps what it replaces."""
        config_tree.Originals(str(self.root)).keep([path])
        self.write(path, text)

    def record(self, **known: Any) -> None:
        self.write("/var/lib/fortress/before/host.json", json.dumps(RECORD | known))

    def install(self, name: str, depends: str = "", *, manual: bool = True) -> None:
        """Have dpkg believe that a package is installed."""
        self.write(
            "/var/lib/dpkg/status",
            (self.read("/var/lib/dpkg/status") or "")
            + f"Package: {name}\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"
            + (f"Depends: {depends}\n" if depends else "")
            + "Maintainer: x\nDescription: x\n\n",
        )
        self.write(f"/var/lib/dpkg/info/{name}.list", "")
        if not manual:
            states = self.read("/var/lib/apt/extended_states") or ""
            self.write(
                "/var/lib/apt/extended_states", f"{states}Package: {name}\nArchitecture: amd64\nAuto-Installed: 1\n\n"
            )

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        self.ran.append(" ".join(command))
        program, *arguments = command
        for start, answer in self.answers.items():
            if self.ran[-1].startswith(start):
                return subprocess.CompletedProcess(command, 0, answer, "")
        if program in ("apt-get", "apt-mark") and "--yes" not in arguments and "auto" not in arguments:
            state = [
                f"Dir={self.root}",
                f"Dir::State::status={self.root}/var/lib/dpkg/status",
                "APT::Architecture=amd64",
            ]
            return run(program, *(word for option in state for word in ("-o", option)), *arguments)
        if program == "dpkg-query":
            return run(program, f"--admindir={self.root}/var/lib/dpkg", *arguments)
        return subprocess.CompletedProcess(command, 0, "", "")

    def removal(self, **options: Any) -> Removal:
        return Removal(self.root, runner=self.run, **options)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_file_that_was_replaced_comes_back_and_one_that_is_new_goes(machine: Machine) -> None:
    machine.record()
    before = machine.write("/etc/default/demo", "theirs\n")
    before.chmod(0o640)
    for text in ("ours", "ours, of a later release"):
        machine.configure("/etc/default/demo", text)
        machine.configure("/etc/demo.d/new/fortress.conf", text)
    machine.write("/etc/demo.d/foreign.conf", "theirs")
    remove_role(machine.removal(), NOTHING | {"tree": ["/etc/default/demo", "/etc/demo.d/new/fortress.conf"]})
    assert (machine.read("/etc/default/demo"), before.stat().st_mode & 0o777) == ("theirs\n", 0o640)
    removal = machine.removal()
    remove_last(removal, NOTHING)
    assert not (machine.root / "etc/demo.d/new").exists()
    assert machine.read("/etc/demo.d/foreign.conf") == "theirs"
    assert "/etc/demo.d/: not everything in it is Fortress's." in removal.left
    assert not (machine.root / "var/lib/fortress").exists()
    assert not machine.removal().is_ours()


def test_what_an_earlier_release_wrote_and_no_role_names_goes_too(machine: Machine) -> None:
    machine.record()
    machine.configure("/etc/demo/old-name.conf", "ours")
    remove_last(machine.removal(), NOTHING | {"after": {"/etc/demo/*": "true reread"}})
    assert "true reread" in machine.ran
    assert not (machine.root / "etc/demo").exists()


def test_check_mode_says_the_same_and_changes_nothing(machine: Machine) -> None:
    machine.record()
    machine.configure("/etc/demo/fortress.conf", "ours")
    machine.write("/opt/iris-api/model", "ours")
    link = machine.root / "etc/systemd/system/multi-user.target.wants/iris-api@1.service"
    link.parent.mkdir(parents=True)
    link.symlink_to("../iris-api@.service")
    before = sorted(machine.root.rglob("*"))
    wanted = NOTHING | {"units": ["iris-api@*.service"], "paths": ["/opt/iris-*"], "tree": ["/etc/demo/fortress.conf"]}
    would = machine.removal(check=True)
    remove_role(would, wanted)
    assert sorted(machine.root.rglob("*")) == before
    done = machine.removal()
    remove_role(done, wanted)
    assert would.removed == done.removed
    assert len(done.removed) == 3
    assert not (machine.root / "opt/iris-api").exists()
    assert not os.path.lexists(link)


def test_a_service_that_was_there_is_as_it_was(machine: Machine) -> None:
    machine.record(units={"old.service": "enabled", "off.service": "disabled"}, active=["old.service"])
    link = machine.root / "etc/systemd/system/multi-user.target.wants/new.service"
    link.parent.mkdir(parents=True)
    link.symlink_to("/usr/lib/systemd/system/new.service")
    machine.answers = {"systemctl is-enabled old": "enabled\n", "systemctl is-enabled off": "enabled\n"}
    remove_role(machine.removal(), NOTHING | {"services": ["old.service", "off.service", "new.service"]})
    assert [command for command in machine.ran if "is-enabled" not in command and "list-units" not in command] == [
        "systemctl daemon-reload",
        "systemctl restart old.service",
        "systemctl disable off.service",
    ]
    assert not link.parent.exists()


def test_a_unit_that_goes_on_stops_the_removal(machine: Machine) -> None:
    machine.record()
    machine.answers = {"systemctl list-units": "demo.service loaded active running Demo\n"}
    with pytest.raises(RemovalError, match=r"demo\.service can't be stopped\. `systemctl status demo\.service`"):
        machine.removal().stop(["demo.service"])


def test_a_failed_unit_is_forgotten(machine: Machine) -> None:
    machine.record()
    machine.answers = {"systemctl list-units": "demo.service loaded failed failed Demo\n"}
    machine.removal().stop(["demo.service"])
    assert "systemctl reset-failed demo.service" in machine.ran


def test_packages_go_with_what_came_along_and_stay_where_somebody_needs_them(machine: Machine) -> None:
    machine.record(packages=["base", "curl"], manual=["base"])
    machine.install("base")
    machine.install("curl")  # Installed automatically before, marked by hand by our run.
    machine.install("nginx", "nginx-common, shared")
    machine.install("nginx-common", manual=False)
    machine.install("shared", manual=False)
    machine.install("prometheus", "libjs")
    machine.install("libjs", manual=False)
    machine.install("theirs", "prometheus, shared")
    machine.install("orphan", manual=False)  # Somebody else's, before us and after.
    machine.install("nftables")
    removal = machine.removal()
    wanted = ["nginx", "prometheus", "curl", "nftables", "not-installed"]
    assert removal.packages(wanted, {"nftables": "systemctl --quiet is-enabled nftables.service"}) == [
        "nginx",
        "nginx-common",
    ]
    assert "apt-get --quiet -o DPkg::Lock::Timeout=600 --yes purge nginx nginx-common" in machine.ran
    assert "apt-mark auto curl prometheus" in machine.ran
    assert removal.left == [
        "The packages curl: they were there before, perhaps in an older version; an upgrade is not taken back.",
        "The package nftables: somebody else uses it (`systemctl --quiet is-enabled nftables.service`).",
        "The package prometheus: theirs needs it. Its services are stopped.",
    ]


def test_what_others_have_in_the_folder_of_a_package_outlives_its_purge(machine: Machine) -> None:
    machine.record()
    machine.install("nginx")
    machine.write(
        "/var/lib/dpkg/info/nginx.list", "/etc\n/etc/nginx\n/etc/nginx/nginx.conf\n/etc/nginx/sites/default\n"
    )
    machine.write("/etc/nginx/nginx.conf", "of the package")
    machine.write("/etc/nginx/conf.d/foreign.conf", "theirs").chmod(0o600)
    enabled = machine.root / "etc/nginx/enabled"
    enabled.symlink_to("sites/default")
    inner = machine.run

    def purging(*command: str) -> subprocess.CompletedProcess[str]:
        if "--yes" in command:
            subprocess.run(["rm", "-rf", machine.root / "etc/nginx"], check=True)
        return inner(*command)

    removal = Removal(machine.root, runner=purging)
    removal.packages(["nginx"], {})
    assert [path.name for path in (machine.root / "etc/nginx").rglob("*")] == ["conf.d", "foreign.conf"]
    assert (machine.root / "etc/nginx/conf.d/foreign.conf").stat().st_mode & 0o777 == 0o600
    assert removal.left == ["/etc/nginx/conf.d/foreign.conf: it is not Fortress's."]


def test_users_go_unless_they_were_there_or_a_package_needs_them(machine: Machine) -> None:
    machine.record(users=["root", "prometheus"], groups=["root", "prometheus"])
    machine.install("demo")
    for file in ("passwd", "group"):
        machine.write(f"/etc/{file}", "root:x\nprometheus:x\ngrafana:x\niris-api:x\ndemo:x\n")
    of_packages = {"prometheus": ["prometheus"], "grafana": ["grafana"], "demo": ["gone", "demo"], "missing": []}
    machine.removal().accounts(["iris-api"], of_packages)
    commands = [command for command in machine.ran if "dpkg" not in command]
    assert commands == ["userdel iris-api", "groupdel iris-api", "userdel grafana", "groupdel grafana"]


def test_without_a_record_what_is_doubtful_stays_and_is_named(machine: Machine) -> None:
    machine.install("nginx")
    machine.write("/etc/passwd", "root:x\nprometheus:x\niris-api:x\n")
    ours = [
        "/etc/nginx/nginx.conf",
        "/etc/apt/sources.list.d/debian.sources",
        "/etc/prometheus/rules/api.yml",
        "/etc/nginx/mime.types",
        "/usr/local/sbin/demo",
    ]
    machine.write("/var/lib/dpkg/info/nginx.list", "/etc\n/etc/nginx\n/etc/nginx/nginx.conf\n/etc/nginx/mime.types\n")
    for path in ours:
        machine.write(path, "# Managed by Fortress (role demo)")
    machine.write("/etc/default/nginx", "of the package")
    machine.write("/var/lib/prometheus/metrics", "")
    removal = machine.removal()
    remove_role(removal, NOTHING | {"tree": [*ours, "/etc/default/nginx"], "unknown_without_record": ours[1:2]})
    last = {"packages": ["nginx"], "users": ["iris-api"], "package_users": {"prometheus": ["prometheus"]}}
    remove_last(removal, NOTHING | last | {"package_folders": {"/var/lib/prometheus": ["prometheus"]}})
    assert [machine.read(path) is None for path in ours] == [True, False, True, True, True]
    left = [
        folder for folder in ("etc/nginx", "etc/prometheus/rules", "usr/local/sbin") if (machine.root / folder).exists()
    ]
    assert left == ["etc/nginx", "usr/local/sbin"], (
        "a folder of a package, and one that every host has, stay when they are empty"
    )
    assert machine.read("/etc/default/nginx") == "of the package"
    assert [line for line in removal.removed if "del " in line] == ["userdel iris-api"]
    assert not any("purge" in line for line in machine.ran)
    said = "\n".join(removal.left)
    for what in (
        "nginx without its /etc/nginx/nginx.conf and /etc/nginx/mime.types, replaced",
        "debian.sources: it is Fortress's",
        "The packages nginx: which of them",
        "/var/lib/prometheus: of packages",
    ):
        assert what in said


def test_what_would_be_lost_has_the_data_of_packages_only_where_they_go(machine: Machine) -> None:
    for path in ("/opt/iris-api/current", "/var/lib/prometheus/metrics"):
        machine.write(path, "")
    asked = {"/opt/iris-api": "models"}, {"/var/lib/prometheus": "figures", "/var/lib/grafana": "users"}
    assert machine.removal().losses(*asked) == ["/opt/iris-api, 0 MB: models"]
    machine.record()
    assert machine.removal().losses(*asked) == ["/opt/iris-api, 0 MB: models", "/var/lib/prometheus, 0 MB: figures"]


def test_a_removal_without_a_record_that_is_cut_goes_on(machine: Machine) -> None:
    machine.write("/opt/iris-api/current", "")
    machine.write("/etc/passwd", "root:x\niris-api:x\n")
    machine.install("nginx")
    machine.write("/var/lib/dpkg/info/nginx.list", "/etc\n/etc/nginx\n/etc/nginx/nginx.conf\n")
    machine.write("/etc/nginx/nginx.conf", "# Managed by Fortress")
    wanted = NOTHING | {"paths": ["/opt/iris-api"], "tree": ["/etc/nginx/nginx.conf"]}
    remove_role(machine.removal(), wanted)
    again = machine.removal()
    assert again.is_ours()
    remove_role(again, wanted)
    assert "nginx without its /etc/nginx/nginx.conf" in again.left[0]
    remove_last(again, NOTHING | {"users": ["iris-api"]})
    assert "userdel iris-api" in again.removed
    assert not machine.removal().is_ours()


def test_a_list_of_sources_that_was_moved_away_comes_back(machine: Machine) -> None:
    machine.record()
    machine.write("/etc/apt/sources.list.before-fortress", "theirs")
    machine.removal().move_back({"/etc/apt/sources.list": "/etc/apt/sources.list.before-fortress"})
    assert (machine.read("/etc/apt/sources.list"), machine.read("/etc/apt/sources.list.before-fortress")) == (
        "theirs",
        None,
    )


def test_a_command_runs_only_where_a_file_of_its_pattern_went(machine: Machine) -> None:
    machine.record()
    machine.write("/opt/one/file", "")
    after = {"/opt/one": "true one", "/opt/two": "true two", "/opt/*": "no-such-program"}
    remove_role(machine.removal(), NOTHING | {"paths": ["/opt/one", "/opt/two"], "after": after})
    assert machine.ran == ["true one"]


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_record_stops_the_removal_before_anything_goes(machine: Machine, text: str) -> None:
    machine.write("/var/lib/fortress/before/host.json", text)
    with pytest.raises(RemovalError, match="Nothing was removed"):
        machine.removal()


def test_the_record_has_what_this_machine_has() -> None:
    def lines(*command: str) -> list[str]:
        # systemd may not be this machine's init, and apt takes seconds where it has nothing cached.
        answers = {
            "list-unit-files": ["demo.service enabled enabled"],
            "list-units": ["demo.service loaded active running Demo"],
            "showmanual": ["bash"],
        }
        return answers[command[1]] if command[1] in answers else host_record.lines(*command)

    found = host_record.state(lines=lines)
    assert (found["units"], found["active"]) == ({"demo.service": "enabled"}, ["demo.service"])
    assert set(found) == set(RECORD)
    # apt names libc6 without its architecture, dpkg with it.
    assert {"dpkg", "bash", "libc6"} <= set(found["packages"])
    assert "root" in found["users"]
    assert {"/etc/apt", "/var/lib/dpkg"} <= set(found["folders"])


def test_what_roles_name_is_collected_for_the_end() -> None:
    one = {"packages": ["a"], "in_use": {"a": "x"}, "left": ["l"]}
    two = {"packages": ["a", "b"], "in_use": {"b": "y"}, "ours": True}
    both = {"packages": ["a", "b"], "in_use": {"a": "x", "b": "y"}, "left": ["l"], "ours": True}
    assert ACTION.merged(one, two) == both
    assert one["packages"] == ["a"]


def test_the_files_of_a_role_are_those_of_its_folders() -> None:
    found = ACTION.tree(ROOT / "roles" / "nginx")
    assert {"/etc/nginx/nginx.conf", "/usr/local/lib/fortress/nginx_watch.py"} <= set(found)
