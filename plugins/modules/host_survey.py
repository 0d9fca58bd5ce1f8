#!/usr/bin/python
"""Look at what a host has already, before anything is changed on it."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import hmac
import json
import os
import pwd
import re
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.facts.ansible_collector import AnsibleFactCollector
from ansible.module_utils.facts.namespace import PrefixFactNamespace
from ansible.module_utils.facts.system import (
    apparmor,
    caps,
    cmdline,
    date_time,
    distribution,
    dns,
    env,
    fips,
    local,
    lsb,
    pkg_mgr,
    platform,
    python,
    selinux,
    service_mgr,
    ssh_pub_keys,
    user,
)

DOCUMENTATION = r"""
module: host_survey
short_description: Look at what a host has already
description:
  - With O(fact_path) it also gathers the facts that C(ansible.builtin.setup) with C(gather_subset=!all) does, by the same collectors. A remote
    execution costs a third of a second, and two programs that look at a host cost two of them.
  - Somebody else's host may have servers on the ports of the site, an nginx with sites, a firewall, a full disk or a half-installed package.
    This module lists them in one step and changes nothing; the preflights of the roles, by the filters of C(survey), say what is wrong.
  - What can't be found out (a program is missing) is left empty.
options:
  fact_path:
    description: Folder of local facts, as C(ansible.builtin.setup) has it. Without it no facts are gathered but the survey.
    type: path
  packages:
    description: Debian packages whose configuration files are looked at, where they are installed.
    type: list
    elements: str
    default: []
  paths:
    description: Folders whose file systems are looked at; of one that does not exist yet, the nearest above it.
    type: list
    elements: str
    default: []
  units:
    description: Units of systemd that are looked at.
    type: list
    elements: str
    default: []
  files:
    description: Files whose content and mode are looked at, by their paths or by patterns of a shell.
    type: list
    elements: str
    default: []
  users:
    description: Users whose entries in the password database are looked at.
    type: list
    elements: str
    default: []
  commands:
    description: Commands that ask whether something is in use, and change nothing.
    type: list
    elements: str
    default: []
  key:
    description:
      - A secret of the site. With it what config_tree has written for a service alone is seen too, as an HMAC, by which nobody without the key can
        try passwords.
    type: str
    default: ""
author: Fortress
"""

EXAMPLES = r"""
- name: Check what the host has already
  host_survey:
    packages: [nginx-common, prometheus]
    paths: [/opt, /usr, /var]
    units: [nginx.service]
"""

RETURN = r"""
ansible_facts:
  description: The fact C(survey), and with O(fact_path) those of Ansible.
  returned: always
  type: dict
  contains:
    survey:
      description: What was found.
      type: dict
      contains:
        listeners:
          description: Each socket that listens for TCP, with C(address), C(port), C(program), and C(unit), the systemd unit of the program.
          type: list
          elements: dict
        nginx_sites:
          description: Configuration files of an nginx that this project has not configured.
          type: list
          elements: str
        changed_files:
          description: Configuration files of O(packages) that somebody has changed, and not this project.
          type: list
          elements: str
        firewalls:
          description: Firewalls beside this project's that may drop what comes in.
          type: list
          elements: str
        unfinished_packages:
          description: Packages that dpkg has begun to install and not ended; C(dpkg) itself where its journal was not merged.
          type: list
          elements: str
        file_systems:
          description: For each of O(paths) C(exists), and of its file system C(device), C(free_mb) in 10^6 bytes, and C(read_only).
          type: dict
        installed:
          description: The version of each Debian package that is installed.
          type: dict
        running:
          description: Those of O(units) that are active, and come up at boot.
          type: list
          elements: str
        files:
          description: C(sha256) and C(mode), octal, of each of O(files) that is there.
          type: dict
        missing:
          description: Those of O(files) of which nothing is there.
          type: list
          elements: str
        users:
          description: C(home), C(shell) and C(comment) of each of O(users) that is there.
          type: dict
        succeeding:
          description: Those of O(commands) that succeed.
          type: list
          elements: str
        addresses:
          description: The IP addresses of the host.
          type: list
          elements: str
        written:
          description:
            - C(sha256), C(mode), C(owner) and C(group) of each file that config_tree has written on this host. With it config_tree knows without
              asking once more that a tree is as it should be.
            - Of a file that not everybody may read C(hmac) in place of C(sha256); without O(key) nothing.
          type: dict
        unapplied:
          description: The files of each record of config_tree that were written and are not in use.
          type: dict
"""

# Those of its minimal subset; some read what earlier ones have found.
COLLECTORS = (
    platform.PlatformFactCollector,
    distribution.DistributionFactCollector,
    apparmor.ApparmorFactCollector,
    caps.SystemCapabilitiesFactCollector,
    cmdline.CmdLineFactCollector,
    date_time.DateTimeFactCollector,
    dns.DnsFactCollector,
    env.EnvFactCollector,
    fips.FipsFactCollector,
    local.LocalFactCollector,
    lsb.LSBFactCollector,
    pkg_mgr.PkgMgrFactCollector,
    python.PythonFactCollector,
    selinux.SelinuxFactCollector,
    service_mgr.ServiceMgrFactCollector,
    ssh_pub_keys.SshPubKeyFactCollector,
    user.UserFactCollector,
)
LISTENER = re.compile(
    r"\S+\s+\S+\s+\S+\s+(?P<address>\S+):(?P<port>\d+)\s+\S+"
    r"(?:\s+users:\(\(\"(?P<program>[^\"]*)\",pid=(?P<pid>\d+))?"
)
# It stands in every configuration file of a package that a role replaces, those of release 1.0.0 included.
OURS = "fortress"
# What config_tree keeps: the list of what it has written, and what no service has read yet.
WRITTEN = "var/lib/fortress/before/written"
UNAPPLIED = "var/lib/fortress/unapplied"


class Survey:
    """Looks at one host; another root is for tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def of(
        self,
        packages: list[str],
        paths: list[str],
        units: list[str],
        files: list[str],
        users: list[str],
        commands: list[str],
        key: str,
    ) -> dict[str, Any]:
        """Return everything that was found: see RETURN."""
        return {
            "listeners": self.listeners(
                output("ss", "--no-header", "--listening", "--numeric", "--tcp", "--processes")
            ),
            "nginx_sites": self.nginx_sites(),
            "changed_files": self.changed_files(
                output("dpkg-query", "--show", "--showformat=${Conffiles}\\n", *packages)
            ),
            "firewalls": self.firewalls(output("nft", "--json", "list", "chains")),
            "unfinished_packages": self.unfinished_packages(),
            "file_systems": {path: self.file_system(path) for path in paths},
            "installed": self.installed(
                output("dpkg-query", "--show", "--showformat=${Package} ${Version} ${db:Status-Status}\\n")
            ),
            "running": self.running(
                output("systemctl", "show", "--property=Id,ActiveState,UnitFileState", "--", *units) if units else ""
            ),
            "files": {path: self.file(path) for path in self.matching(files)},
            "missing": [
                path for path in files if "*" not in path and not os.path.lexists(self.root / path.lstrip("/"))
            ],
            "users": self.users(users),
            "succeeding": [command for command in commands if succeeds(*shlex.split(command))],
            "addresses": self.addresses(output("ip", "-oneline", "address", "show")),
            "written": self.written(key.encode()),
            "unapplied": self.unapplied(),
        }

    def listeners(self, text: str) -> list[dict[str, Any]]:
        """Return what listens, by the lines of ss."""
        found = (LISTENER.match(line) for line in text.splitlines())
        return [
            {
                "address": re.sub(r"[\[\]]", "", each["address"]),
                "port": int(each["port"]),
                "program": each["program"] or "",
                "unit": self.unit(each["pid"]) if each["pid"] else "",
            }
            for each in found
            if each
        ]

    def unit(self, pid: str) -> str:
        """Return the systemd unit of a process, nothing for one that has none."""
        try:
            text = (self.root / "proc" / pid / "cgroup").read_text()
        except OSError:
            return ""
        found = re.search(r"([^/\n]+\.service)(?:/|$)", text, re.MULTILINE)
        # systemd writes the - of a name as \x2d.
        return found[1].replace("\\x2d", "-") if found else ""

    def nginx_sites(self) -> list[str]:
        """Return the sites of an nginx whose nginx.conf is not ours; the one of Debian's package is none."""
        nginx = self.root / "etc/nginx"
        if not (nginx / "nginx.conf").exists() or self.is_ours(nginx / "nginx.conf"):
            return []
        sites = [*nginx.glob("sites-enabled/*"), *nginx.glob("conf.d/*.conf")]
        return [f"/{site.relative_to(self.root)}" for site in sorted(sites) if site.name != "default"]

    def changed_files(self, conffiles: str) -> list[str]:
        """Return the files that differ from those of their packages and are not ours.

        Args:
            conffiles: What dpkg says of them, a line each: path and MD5 of what came with the package.
        """
        found = []
        for path, digest in re.findall(r"^ (/\S+) ([0-9a-f]{32})", conffiles, re.MULTILINE):
            file = self.root / path.lstrip("/")
            with contextlib.suppress(OSError):
                if hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() != digest and not self.is_ours(
                    file
                ):
                    found.append(path)
        return sorted(found)

    def is_ours(self, file: Path) -> bool:
        """Return whether a role has written a file."""
        return OURS in file.read_text(errors="replace").lower()

    def firewalls(self, chains: str) -> list[str]:
        """Return what may drop packets that come in: ufw, firewalld, or a table of nftables with that policy."""
        found = []
        with contextlib.suppress(OSError):
            if re.search(r"^ENABLED=yes", (self.root / "etc/ufw/ufw.conf").read_text(), re.MULTILINE):
                found.append("ufw")
        if (self.root / "run/firewalld").exists():
            found.append("firewalld")
        with contextlib.suppress(ValueError):
            for item in json.loads(chains)["nftables"]:
                chain = item.get("chain", {})
                if chain.get("hook") == "input" and chain.get("policy") == "drop" and "ufw" not in found:
                    found.append(f"nftables table {chain['family']} {chain['table']}")
        return found

    def unfinished_packages(self) -> list[str]:
        """Return the packages between two states, as a power cut leaves them."""
        dpkg = self.root / "var/lib/dpkg"
        try:
            status = (dpkg / "status").read_text(errors="replace")
            journal = any(path.name.isdigit() for path in (dpkg / "updates").iterdir())
        except OSError:
            return []
        unfinished = r"^Package: (\S+)\nStatus: \S+ \S+ (?:half-installed|unpacked|half-configured)$"
        return [*re.findall(unfinished, status, re.MULTILINE), *(["dpkg"] if journal else [])]

    def installed(self, text: str) -> dict[str, str]:
        """Return the version of each package that is installed, by the lines of dpkg-query."""
        states = (line.split() for line in text.splitlines())
        return {state[0]: state[1] for state in states if len(state) == 3 and state[2] == "installed"}

    def running(self, text: str) -> list[str]:
        """Return the units that are active and come up at boot, by the paragraphs of systemctl."""
        states = (dict(line.partition("=")[::2] for line in paragraph.splitlines()) for paragraph in text.split("\n\n"))
        return [
            state["Id"]
            for state in states
            if state.get("ActiveState") == "active" and state.get("UnitFileState") == "enabled"
        ]

    def matching(self, patterns: list[str]) -> list[str]:
        """Return the files that there are of some patterns."""
        found = (path for pattern in patterns for path in sorted(self.root.glob(pattern.lstrip("/"))))
        return [f"/{path.relative_to(self.root)}" for path in found if path.is_file()]

    def file(self, path: str) -> dict[str, str]:
        """Return what a file holds, as a hash, and who may do what with it."""
        file = self.root / path.lstrip("/")
        return {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "mode": f"{stat.S_IMODE(file.stat().st_mode):04o}",
        }

    def users(self, names: list[str]) -> dict[str, dict[str, str]]:
        """Return the entries of those users that there are."""
        found = {}
        for name in names:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                found[name] = {"home": entry.pw_dir, "shell": entry.pw_shell, "comment": entry.pw_gecos}
        return found

    def addresses(self, text: str) -> list[str]:
        """Return the IP addresses of the host, by the lines of ip."""
        return re.findall(r"^\d+: \S+ +inet6? ([0-9a-f.:]+)", text, re.MULTILINE)

    def written(self, key: bytes) -> dict[str, dict[str, str]]:
        """Return the files that config_tree has written; without a key, but for those that not everybody may read."""
        try:
            paths = (self.root / WRITTEN).read_text().splitlines()
        except OSError:
            return {}
        found = {}
        for path in paths:
            file = self.root / path.lstrip("/")
            with contextlib.suppress(OSError, KeyError):
                about = file.lstat()
                is_open = bool(about.st_mode & stat.S_IROTH)
                if stat.S_ISREG(about.st_mode) and (is_open or key):
                    owner, group = pwd.getpwuid(about.st_uid).pw_name, grp.getgrgid(about.st_gid).gr_name
                    found[path] = {**self.file(path), "owner": owner, "group": group}
                    if not is_open:
                        del found[path]["sha256"]
                        found[path]["hmac"] = hmac.digest(key, file.read_bytes(), "sha256").hex()
        return found

    def unapplied(self) -> dict[str, list[str]]:
        """Return the records of config_tree by their names."""
        try:
            records = sorted((self.root / UNAPPLIED).iterdir())
        except OSError:
            return {}
        return {record.name: record.read_text().splitlines() for record in records if record.is_file()}

    def file_system(self, path: str) -> dict[str, Any]:
        """Return what is free where a folder is or will be."""
        place = self.root / path.lstrip("/")
        exists = place.exists()
        while not place.exists():
            place = place.parent
        found = os.statvfs(place)
        return {
            "exists": exists,
            "device": place.stat().st_dev,
            "free_mb": found.f_bavail * found.f_frsize // 10**6,
            "read_only": bool(found.f_flag & os.ST_RDONLY),
        }


def facts(module: AnsibleModule) -> dict[str, Any]:
    """Return what ansible.builtin.setup gathers where it is told to gather the least; C(local) reads O(fact_path)."""
    namespace = PrefixFactNamespace(namespace_name="ansible", prefix="ansible_")
    collectors = [collector(namespace=namespace) for collector in COLLECTORS]
    found: dict[str, Any] = AnsibleFactCollector(collectors=collectors, namespace=namespace).collect(module=module)
    return found


def output(*command: str) -> str:
    """Return what a program prints, however it ends; nothing where it is missing."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def succeeds(*command: str) -> bool:
    """Return whether a program ends well; where it is missing it does not."""
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def main() -> None:
    """Run as a module."""
    strings = {"type": "list", "elements": "str", "default": []}
    lists = ("packages", "paths", "units", "files", "users", "commands")
    options = {"key": {"type": "str", "default": "", "no_log": True}, "fact_path": {"type": "path"}}
    module = AnsibleModule(argument_spec=dict.fromkeys(lists, strings) | options, supports_check_mode=True)
    found = Survey().of(key=module.params["key"], **{name: module.params[name] for name in lists})
    gathered = facts(module) if module.params["fact_path"] else {}
    module.exit_json(changed=False, ansible_facts=gathered | {"survey": found})


if __name__ == "__main__":
    main()
