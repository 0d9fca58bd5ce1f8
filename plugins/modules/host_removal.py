#!/usr/bin/python
"""Take off a host what the roles have put there, and say what stays."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_removal
short_description: Take off a host what the roles have put there
description:
  - Each role calls it in tasks/remove.yml for what is its own. What config_tree wrote from the role's templates/ and files/ need not be named,
    the action plugin lists it. At the end O(last=true) removes the packages of all of them, and the host's record.
  - The record (host_record, config_tree) says what was there before. A file that was replaced gets back what it was, a service of a package
    that was there is as it was, and a package that was there stays.
  - Where there is no record, because an earlier release provisioned the host, packages and their users stay, and it says so.
  - What is removed and what is left is collected in the fact C(removal) over the calls.
  - In check mode it says what it would do.
options:
  look:
    description: Say whether the host has anything of this project, and what would be lost. Nothing else.
    type: bool
    default: false
  last:
    description: Remove the packages, users and folders that the calls before have named, then the record.
    type: bool
    default: false
  units:
    description: Units that the role has made, to stop and to disable. C(*) is allowed.
    type: list
    elements: str
    default: []
  services:
    description: Units of packages, to stop, or to leave as they were before.
    type: list
    elements: str
    default: []
  paths:
    description: Files and folders that the role alone writes, with all that is in them. C(*) is allowed.
    type: list
    elements: str
    default: []
  moved:
    description: Path to where the role has moved what was there.
    type: dict
    default: {}
  unknown_without_record:
    description: Files that stay as they are where no record says what they were, since the host can't be without them.
    type: list
    elements: str
    default: []
  after:
    description: Shell pattern of paths to a command, run where a path of that pattern was removed or put back, and its program is there.
    type: dict
    default: {}
  packages:
    description: Debian packages that the role installs.
    type: list
    elements: str
    default: []
  in_use:
    description: Of some of O(packages) a command that succeeds where somebody else uses the package by now. It stays then.
    type: dict
    default: {}
  users:
    description: Users, with their groups, that the role has made.
    type: list
    elements: str
    default: []
  package_users:
    description: Those that packages have made and leave behind, each with the packages that need it.
    type: dict
    default: {}
  package_folders:
    description: Folders that packages have made and leave behind, each with the packages that use it.
    type: dict
    default: {}
  losses:
    description: For O(look), folders and what is in them.
    type: dict
    default: {}
  package_losses:
    description: As O(losses), of folders that stay with their packages where there is no record.
    type: dict
    default: {}
  tree:
    description: Set by the action plugin, the files of the role's templates/ and files/.
    type: list
    elements: str
    default: []
author: Fortress
"""

EXAMPLES = r"""
- name: Remove nginx
  host_removal:
    units: [nginx-watch.service]
    services: [nginx.service]
    paths: [/etc/nginx/fortress.htpasswd]
    packages: [nginx]
"""

RETURN = r"""
removed:
  description: What was (or, in check mode, would be) removed or put back, a line each.
  returned: always
  type: list
left:
  description: What stays and why, a sentence each.
  returned: always
  type: list
ours:
  description: With O(look), whether the host has anything of this project.
  returned: always
  type: bool
"""

# The record is the last to go.
MARKS = ["/opt/iris-api", "/usr/local/lib/fortress", "/etc/fortress", "/var/lib/fortress"]
BEFORE = "var/lib/fortress/before"
# It stands in every file that a role writes to a place of a package: see host_survey.
OURS = "fortress"
UNITS = "/etc/systemd/"
APT = ["apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=600"]
# A library that something only recommends, or suggests, is not needed.
SIMULATION = [
    "--simulate",
    "-o",
    "APT::AutoRemove::RecommendsImportant=0",
    "-o",
    "APT::AutoRemove::SuggestsImportant=0",
]

Run = Callable[..., subprocess.CompletedProcess[str]]


class RemovalError(Exception):
    """The removal can't go on; the text is for the operator."""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program; one that is missing ends with 127."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "NEEDRESTART_SUSPEND": "1"}
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


@dataclass(frozen=True)
class Before:
    """What the host had before the first change, as host_record wrote it."""

    packages: frozenset[str] = frozenset()
    manual: frozenset[str] = frozenset()
    units: Mapping[str, str] = field(default_factory=dict)
    active: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()

    @classmethod
    def read(cls, root: Path) -> Before | None:
        """Return it, None where there is none. Raises RemovalError where it is damaged."""
        names = ("packages", "manual", "active", "users", "groups", "folders")
        try:
            known = json.loads((root / BEFORE / "host.json").read_text())
            return cls(units=dict(known["units"]), **{name: frozenset(known[name]) for name in names})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RemovalError(
                f"/{BEFORE}/host.json, which says what this host had before, can't be read ({error}). Nothing was removed. "
                "Put it back from a backup, or remove it: then packages and what is doubtful stay."
            ) from error


class Removal:
    """Takes things off one host; another root and another `run` are for tests."""

    def __init__(self, root: Path = Path("/"), check: bool = False, runner: Run = run) -> None:
        self.root = root
        self.check = check
        self.run = runner
        self.before = Before.read(root)
        self.removed: list[str] = []
        self.left: list[str] = []
        self.touched: list[str] = []
        self.written = self._lines(f"/{BEFORE}/written")

    def at(self, path: str) -> Path:
        """Return where a path of the host is."""
        return self.root / path.lstrip("/")

    # What is on the host.

    def is_ours(self) -> bool:
        """Return whether there is anything of this project."""
        return any(self.at(path).exists() for path in MARKS)

    def losses(self, folders: Mapping[str, str], of_packages: Mapping[str, str]) -> list[str]:
        """Return what would be lost, as `/opt/iris-api, 312 MB: models and deployments`.

        Args:
            folders: Path to what is in it.
            of_packages: The same, of folders that stay with their packages where there is no record.
        """
        found = []
        for path, content in {**folders, **(of_packages if self.before else {})}.items():
            if self.at(path).exists():
                size = sum(file.lstat().st_size for file in self.at(path).rglob("*") if file.is_file())
                found.append(f"{path}, {size / 1e6:.0f} MB: {content}")
        return found

    # What a role has put there.

    def stop(self, units: Sequence[str]) -> None:
        """Stop units, and have systemd forget that one has failed. Raises RemovalError where one goes on."""
        if not units:
            return
        running = [name for name, state in self._loaded(units).items() if state != "inactive"]
        if not running:
            return
        self.removed += [f"stop {name}" for name in running]
        if self.check:
            return
        self.run("systemctl", "stop", *running)
        self.run("systemctl", "reset-failed", *running)
        if going_on := [name for name, state in self._loaded(running).items() if state not in ("inactive", "failed")]:
            raise RemovalError(
                f"{', '.join(going_on)} can't be stopped. `systemctl status {going_on[0]}` on the host says why; then run the same again."
            )

    def disable(self, units: Sequence[str]) -> None:
        """Remove the links by which units come up at boot, also where the unit itself is gone."""
        for link in sorted(self.at(f"{UNITS}system").glob("*.*/*")):
            if link.is_symlink() and any(fnmatch.fnmatch(link.name, unit) for unit in units):
                self._touch(f"/{link.relative_to(self.root)}")
                if not self.check:
                    link.unlink()
                    self._remove_if_empty(link.parent)

    def files(self, tree: Iterable[str], paths: Iterable[str], unknown: Iterable[str]) -> None:
        """Remove what a role writes, or put back what it has replaced.

        Args:
            tree: What it writes by its templates, in places of others too.
            paths: What is its own, whatever it holds; patterns.
            unknown: Files of the tree that stay where no record says what they were.
        """
        bare: dict[str, list[str]] = {}
        for path in tree:
            file = self.at(path)
            if path in self.written:
                self.restore(path)
                continue
            # What is there, and was neither written nor ever recorded, is somebody else's: Debian's list of package sources, say.
            if self.before or (file.is_file() and OURS not in path + file.read_text(errors="replace").lower()):
                continue
            if path in unknown and file.exists():
                self.left.append(
                    f"{path}: it is Fortress's, but what it was before was not recorded, and the host needs it."
                )
            else:
                self._remove(path)
            # Also where a removal that was cut has taken it, and said nothing yet.
            if path not in unknown and (self.check or not file.exists()) and (package := self._package_of(path)):
                bare.setdefault(package, []).append(path)
        for package, gone in bare.items():
            self.left.append(
                f"{package} without its {' and '.join(gone)}, replaced by Fortress; its services are stopped and disabled. `sudo apt-get "
                f"-o Dpkg::Options::=--force-confmiss install --reinstall {package}` brings back what comes with it."
            )
        for pattern in paths:
            for found in sorted(glob.glob(str(self.at(pattern)))):
                path = f"/{Path(found).relative_to(self.root)}"
                if path in self.written:
                    self.restore(path)
                else:
                    self._remove(path)

    def restore(self, path: str) -> None:
        """Put back what config_tree has replaced, or remove what it has added."""
        original = self.root / BEFORE / "files" / path.lstrip("/")
        if not os.path.lexists(original):
            self._remove(path)
        elif not _same(original, self.at(path)):
            self._touch(path, "put back")
            if not self.check:
                self.at(path).parent.mkdir(parents=True, exist_ok=True)
                _copy(original, self.at(path))

    def move_back(self, moved: Mapping[str, str]) -> None:
        """Move back what a role has moved away, unless somebody has written the file anew."""
        for path, aside in moved.items():
            if self.at(aside).exists() and not self.at(path).exists():
                self._touch(path, "put back")
                if not self.check:
                    self.at(aside).rename(self.at(path))

    def as_before(self, services: Sequence[str]) -> None:
        """Have services of packages that were there run as they did; the others stay stopped."""
        known = self.before.units if self.before else {}
        active = self.before.active if self.before else frozenset()
        for service in [service for service in services if service in known]:
            self.removed.append(
                f"{service} as it was: {known[service]}, {'running' if service in active else 'stopped'}"
            )
            if self.check:
                continue
            wanted = "enable" if known[service] == "enabled" else "disable"
            if self.run("systemctl", "is-enabled", service).stdout.strip() != f"{wanted}d":
                self.run("systemctl", wanted, service)
            if service in active:
                self.run("systemctl", "restart", service)

    def apply(self, after: Mapping[str, str]) -> None:
        """Have systemd and the commands know what was removed; one that fails is said."""
        if self.check:
            return
        if any(path.startswith(UNITS) for path in self.touched):
            self.run("systemctl", "daemon-reload")
        for pattern, command in after.items():
            program, *arguments = shlex.split(command)
            if any(fnmatch.fnmatch(path, pattern) for path in self.touched) and shutil.which(program):
                done = self.run(program, *arguments)
                if done.returncode != 0:
                    self.left.append(f"`{command}` failed: {' '.join((done.stderr or done.stdout).split())[:300]}")

    # What packages have put there, and the record.

    def packages(self, wanted: Sequence[str], in_use: Mapping[str, str]) -> list[str]:
        """Purge what was not installed before, with what came along, unless somebody else needs it by now; return what went."""
        installed = self._installed()
        if not self.before:
            if present := [name for name in wanted if name in installed]:
                self.left.append(
                    f"The packages {', '.join(present)}: which of them were there before was not recorded. One that you don't use goes by "
                    "`sudo apt-get purge --auto-remove NAME`; a package that another one suggests and the users of packages stay then."
                )
            return []
        if stay := [name for name in dict.fromkeys(wanted) if name in installed and name in self.before.packages]:
            self.left.append(
                f"The packages {', '.join(stay)}: they were there before, perhaps in an older version; an upgrade is not taken back."
            )
        manual = set(self.run("apt-mark", "showmanual").stdout.split())
        direct = [name for name in dict.fromkeys(wanted) if name in installed and name not in self.before.packages]
        used = [name for name in direct if name in in_use and self.run(*shlex.split(in_use[name])).returncode == 0]
        self.left += [f"The package {name}: somebody else uses it (`{in_use[name]}`)." for name in used]
        direct = [name for name in direct if name not in used]
        foreign = manual | self.before.packages
        along = self._simulate("purge", "--auto-remove", *direct) if direct else set()
        if along & foreign - {*direct}:
            for name, others in self._needed(direct, foreign).items():
                direct.remove(name)
                self.left.append(f"The package {name}: {', '.join(sorted(others))} needs it. Its services are stopped.")
            along = self._simulate("purge", "--auto-remove", *direct) if direct else set()
        along -= self._simulate("autoremove") if along - {*direct} else set()
        gone = sorted({*direct, *(along - manual - self.before.packages)})
        automatic = sorted(
            name
            for name in {*wanted} & manual
            if name not in {*gone, *used} and name in installed and name not in self.before.manual
        )
        self.removed += [f"purge {name}" for name in gone] + [
            f"mark {name} as installed automatically" for name in automatic
        ]
        if self.check:
            return gone
        if gone:
            self._set_aside(gone)
            done = self.run(*APT, "--yes", "purge", *gone)
            if done.returncode != 0:
                raise RemovalError(
                    f"apt-get can't purge {' '.join(gone)}: {' '.join((done.stderr or done.stdout).split())[-600:]} Mend it there "
                    "(`sudo dpkg --configure -a`, `sudo apt-get --fix-broken install`) and run the same again."
                )
        if automatic:
            self.run("apt-mark", "auto", *automatic)
        self._bring_back()
        return gone

    def accounts(
        self, users: Iterable[str], of_packages: Mapping[str, Sequence[str]], gone: Iterable[str] = ()
    ) -> None:
        """Remove the users and the groups that were not there before.

        Args:
            users: Those that a role has made.
            of_packages: Those that packages have made, each with the packages that need it.
            gone: Packages that are purged in this call: in check mode they are still there.
        """
        installed = self._installed() - {*gone}
        unneeded = [name for name, packages in of_packages.items() if self.before and not {*packages} & installed]
        for name in [*users, *unneeded]:
            for kind, program in (("passwd", "userdel"), ("group", "groupdel")):
                before = (self.before.users if kind == "passwd" else self.before.groups) if self.before else ()
                known = re.findall(r"^([^:]+):", self.at(f"/etc/{kind}").read_text(), re.MULTILINE)
                if name in before or name not in known:
                    continue
                if not self.check and (done := self.run(program, name)).returncode != 0:
                    self.left.append(f"{name} of /etc/{kind}: {' '.join(done.stderr.split())}")
                else:
                    self.removed.append(f"{program} {name}")

    def data(self, folders: Mapping[str, Sequence[str]], gone: Iterable[str]) -> None:
        """Remove the folders that were not there before, whose packages are gone.

        Args:
            folders: Path to the packages that use it.
            gone: Packages that are purged in this call: in check mode they are still there.
        """
        installed = self._installed() - {*gone}
        kept = []
        for path, packages in folders.items():
            if not self.at(path).exists():
                continue
            if self.before and path not in self.before.folders and not {*packages} & installed:
                self._remove(path)
            elif self.at(path).is_dir():
                kept.append(path)
        if kept:
            self.left.append(f"{', '.join(kept)}: of packages that stay.")

    def begin(self) -> None:
        """Have the folder of the record, by which a removal that is cut goes on, also where an earlier release made none."""
        if not self.check:
            self.at(MARKS[-1]).mkdir(parents=True, exist_ok=True)

    def leftovers(self) -> None:
        """Remove what config_tree wrote and no role names any longer, as another release has done."""
        for path in self.written:
            if not path.endswith("/"):
                self.restore(path)

    def folders(self) -> None:
        """Remove the folders that config_tree made, where nothing of somebody else's is in them."""
        for path in sorted((path for path in self.written if path.endswith("/")), reverse=True):
            if self.at(path).exists() and not self.check:
                self._remove_if_empty(self.at(path))
                if self.at(path).exists():
                    self.left.append(f"{path}: not everything in it is Fortress's.")

    def end(self) -> None:
        """Remove the record, by which a removal that is cut goes on."""
        for path in MARKS:
            if self.at(path).exists():
                self._remove(path)
        self.left.append(
            "/var/log: the journal of what has run, and the logs of apt and dpkg. /var/lib/apt/lists: the package lists, until the next "
            "`apt-get update`. The user who logged in, and what Ansible keeps in that user's ~/.ansible."
        )

    # The small steps.

    def _touch(self, path: str, verb: str = "remove") -> None:
        self.touched.append(path)
        self.removed.append(f"{verb} {path}")

    def _remove(self, path: str) -> None:
        file = self.at(path)
        if not os.path.lexists(file):
            return
        self._touch(path)
        if self.check:
            return
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink()
        # Without a record a folder of /etc that only ours were in, as nginx.service.d, goes with the last of them.
        if not self.written and path.startswith("/etc/") and not self._package_of(os.path.dirname(path)):
            self._remove_if_empty(file.parent)

    @staticmethod
    def _remove_if_empty(folder: Path) -> None:
        with contextlib.suppress(OSError):
            folder.rmdir()

    def _lines(self, path: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return self.at(path).read_text().splitlines()
        return []

    def _loaded(self, units: Sequence[str]) -> dict[str, str]:
        """Return the units that systemd knows, with what they do: active, failed, ..."""
        listed = self.run("systemctl", "list-units", "--all", "--no-legend", "--no-pager", "--plain", "--", *units)
        rows = [line.split() for line in listed.stdout.splitlines()]
        return {row[0]: row[2] for row in rows if len(row) >= 3 and (row[1] != "not-found" or row[2] != "inactive")}

    def _installed(self) -> set[str]:
        listed = self.run("dpkg-query", "--show", "--showformat=${db:Status-Abbrev} ${Package} ${binary:Package}\\n")
        return {name for line in listed.stdout.splitlines() if line[1:2] in "iUFHWt" for name in line.split()[1:]}

    def _simulate(self, *arguments: str) -> set[str]:
        """Return what apt would remove. Raises RemovalError where it can't say."""
        done = self.run("apt-get", *SIMULATION, *arguments)
        if done.returncode != 0:
            raise RemovalError(
                f"apt-get can't say what depends on the packages: {' '.join((done.stderr or done.stdout).split())[-400:]} Mend it there "
                "(`sudo dpkg --configure -a`, `sudo apt-get --fix-broken install`) and run the same again."
            )
        return set(re.findall(r"^(?:Remv|Purg) (\S+)", done.stdout, re.MULTILINE))

    def _needed(self, direct: Sequence[str], foreign: Iterable[str]) -> dict[str, set[str]]:
        """Return those of the packages without which something would go that is not ours, with what that is."""
        others = {*foreign} - {*direct}
        needs = {name: self._simulate("remove", name) & others for name in direct}
        return {name: found for name, found in needs.items() if found}

    def _package_of(self, path: str) -> str:
        found = re.match(r"([^:,]+):", self.run("dpkg-query", "--search", path).stdout)
        return found[1] if found else ""

    def _owned(self, packages: Iterable[str]) -> set[str]:
        names = {name.split(":")[0] for name in packages}
        return {
            line
            for listed in (self.at("/var/lib/dpkg/info")).glob("*.list")
            if listed.stem.split(":")[0] in names
            for line in listed.read_text().splitlines()
        }

    def _set_aside(self, packages: Sequence[str]) -> None:
        """Copy what is not ours in the configuration of packages: some remove the whole folder when they are purged, nginx does."""
        owned = self._owned(packages)
        shared = self._owned(self._installed() - {*packages})
        folders = [
            path
            for path in owned
            if re.fullmatch(r"/etc/[^/]+", path) and self.at(path).is_dir() and path not in shared
        ]
        for folder in folders:
            for file in sorted(self.at(folder).rglob("*")):
                path = f"/{file.relative_to(self.root)}"
                if (file.is_dir() and not file.is_symlink()) or path in owned or self._points_at(file) in owned:
                    continue
                kept = self.root / BEFORE / "others" / path.lstrip("/")
                kept.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
                _copy(file, kept)

    def _points_at(self, file: Path) -> str:
        """Return the path on the host to which a link points, nothing for what is no link."""
        if not file.is_symlink():
            return ""
        return os.path.normpath(f"/{file.parent.relative_to(self.root)}" / Path(os.readlink(file)))

    def _bring_back(self) -> None:
        others = self.root / BEFORE / "others"
        for kept in sorted(others.rglob("*")):
            if kept.is_dir() and not kept.is_symlink():
                continue
            path = f"/{kept.relative_to(others)}"
            if not os.path.lexists(self.at(path)):
                self.at(path).parent.mkdir(parents=True, exist_ok=True)
                _copy(kept, self.at(path))
            self.left.append(f"{path}: it is not Fortress's.")


def _same(one: Path, other: Path) -> bool:
    """Return whether content, mode and owner of two files are the same."""
    try:
        mine, its = os.lstat(one), os.lstat(other)
        if (mine.st_mode, mine.st_uid, mine.st_gid) != (its.st_mode, its.st_uid, its.st_gid):
            return False
        return os.readlink(one) == os.readlink(other) if one.is_symlink() else one.read_bytes() == other.read_bytes()
    except FileNotFoundError:
        return False


def _copy(source: Path, target: Path) -> None:
    """Copy with mode, times and owner, a link as a link, replacing the target in one step."""
    draft = target.with_name(f".{target.name}.removal")
    shutil.copy2(source, draft, follow_symlinks=False)
    status = os.lstat(source)
    os.chown(draft, status.st_uid, status.st_gid, follow_symlinks=False)
    os.replace(draft, target)


def remove_role(removal: Removal, wanted: Mapping[str, Any]) -> None:
    """Remove what one role has put there, but its packages."""
    removal.begin()
    removal.stop([*wanted["units"], *wanted["services"]])
    known = removal.before.units if removal.before else {}
    removal.disable([*wanted["units"], *(service for service in wanted["services"] if service not in known)])
    removal.files(wanted["tree"], wanted["paths"], wanted["unknown_without_record"])
    removal.move_back(wanted["moved"])
    removal.apply(wanted["after"])
    removal.as_before(wanted["services"])


def remove_last(removal: Removal, wanted: Mapping[str, Any]) -> None:
    """Remove what all of them have in common: packages, users, folders, the record."""
    removal.leftovers()
    removal.apply(wanted["after"])
    gone = removal.packages(wanted["packages"], wanted["in_use"])
    removal.accounts(wanted["users"], wanted["package_users"], gone)
    removal.data(wanted["package_folders"], gone)
    removal.folders()
    removal.end()


def main() -> None:
    """Run as a module."""
    kinds: dict[str, tuple[Any, tuple[str, ...]]] = {
        "bool": (False, ("look", "last")),
        "list": (
            [],
            ("units", "services", "paths", "unknown_without_record", "packages", "users", "tree"),
        ),
        "dict": ({}, ("moved", "after", "in_use", "package_users", "package_folders", "losses", "package_losses")),
    }
    module = AnsibleModule(
        argument_spec={
            name: {"type": kind, "default": default} | ({"elements": "str"} if kind == "list" else {})
            for kind, (default, names) in kinds.items()
            for name in names
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    try:
        removal = Removal(check=module.check_mode)
        ours = removal.is_ours()
        if module.params["look"]:
            losses = removal.losses(module.params["losses"], module.params["package_losses"])
            module.exit_json(changed=False, ours=ours, recorded=removal.before is not None, losses=losses)
        if module.params["last"]:
            remove_last(removal, module.params)
        else:
            remove_role(removal, module.params)
    except (OSError, RemovalError) as error:
        module.fail_json(msg=f"host_removal: {error}")
    module.exit_json(changed=bool(removal.removed), removed=removal.removed, left=removal.left)


if __name__ == "__main__":
    main()
