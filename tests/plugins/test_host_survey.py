"""What a host has already is found, and only that: by files of a host's own form, and on this machine."""

from __future__ import annotations

import grp
import hashlib
import hmac
import json
import os
import pwd
import re
import socket
from pathlib import Path

import pytest

from plugins.modules.host_survey import Survey, output

SS = r"""
LISTEN 0      511          0.0.0.0:80         0.0.0.0:*    users:(("apache2",pid=41,fd=4),("apache2",pid=40,fd=4))
LISTEN 0      4096            [::]:9090          [::]:*    users:(("python3",pid=42,fd=3))
LISTEN 0      128        127.0.0.1:22         0.0.0.0:*
LISTEN 0      64    [fe80::1]%eth0:546           [::]:*    users:(("agent",pid=43,fd=3))
"""


@pytest.fixture
def host(tmp_path: Path) -> Survey:
    return Survey(tmp_path)


def write(host: Survey, path: str, text: str) -> Path:
    file = host.root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_who_listens_is_named_with_its_unit(host: Survey) -> None:
    write(host, "/proc/41/cgroup", "0::/system.slice/apache2.service\n")
    write(
        host,
        "/proc/42/cgroup",
        "12:pids:/x\n1:name=systemd:/system.slice/system-demo\\x2dapi.slice/demo\\x2dapi@1.service/sub\n",
    )
    write(host, "/proc/43/cgroup", "0::/user.slice/user-0.slice/session-1.scope\n")
    assert host.listeners(SS) == [
        {"address": "0.0.0.0", "port": 80, "program": "apache2", "unit": "apache2.service"},
        {"address": "::", "port": 9090, "program": "python3", "unit": "demo-api@1.service"},
        {"address": "127.0.0.1", "port": 22, "program": "", "unit": ""},
        {"address": "fe80::1%eth0", "port": 546, "program": "agent", "unit": ""},
    ]


def test_a_real_listener_of_this_machine_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = Survey().listeners(output("ss", "--no-header", "--listening", "--numeric", "--tcp", "--processes"))
    assert [each["address"] for each in found if each["port"] == port] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("main", "sites"),
    [
        ("http { include sites-enabled/*; }", ["/etc/nginx/conf.d/gzip.conf", "/etc/nginx/sites-enabled/shop"]),
        # What release 1.0.0 wrote, and what is written now.
        ("http { include fortress.d/log.conf; }", []),
        ("# Managed by Fortress (role nginx)", []),
    ],
)
def test_sites_of_an_nginx_are_somebodys_until_its_configuration_is_ours(
    host: Survey, main: str, sites: list[str]
) -> None:
    write(host, "/etc/nginx/nginx.conf", main)
    for site in ("sites-enabled/default", "sites-enabled/shop", "conf.d/gzip.conf", "conf.d/README"):
        write(host, f"/etc/nginx/{site}", "")
    assert host.nginx_sites() == sites


def test_no_nginx_has_no_sites(host: Survey) -> None:
    assert host.nginx_sites() == []


def test_a_configuration_file_is_changed_if_it_is_neither_the_packages_nor_ours(host: Survey) -> None:
    digest = hashlib.md5(b"as packaged").hexdigest()
    for name, text in (("a", "as packaged"), ("b", "changed"), ("c", "# Managed by Fortress")):
        write(host, f"/etc/{name}", text)
    conffiles = "".join(f"\n /etc/{name} {digest}" for name in "abcd") + f"\n /etc/b {digest} obsolete\n"
    assert host.changed_files(conffiles) == ["/etc/b", "/etc/b"]


@pytest.mark.parametrize(("enabled", "found"), [("yes", ["ufw"]), ("no", [])])
def test_ufw_counts_where_it_is_enabled(host: Survey, enabled: str, found: list[str]) -> None:
    write(host, "/etc/ufw/ufw.conf", f"# /etc/ufw/ufw.conf\nENABLED={enabled}\nLOGLEVEL=low\n")
    assert host.firewalls("") == found


def test_firewalld_and_tables_that_drop_are_found(host: Survey) -> None:
    (host.root / "run/firewalld").mkdir(parents=True)
    chains = [
        {"metainfo": {}},
        {"chain": {"family": "inet", "table": "filter", "name": "input", "hook": "input", "policy": "drop"}},
        {"chain": {"family": "inet", "table": "filter", "name": "forward", "hook": "forward", "policy": "drop"}},
        {"chain": {"family": "inet", "table": "fortress", "name": "input", "hook": "input", "policy": "accept"}},
        {"chain": {"family": "ip", "table": "x", "name": "jumped_to"}},
    ]
    assert host.firewalls(json.dumps({"nftables": chains})) == ["firewalld", "nftables table inet filter"]


def test_packages_between_two_states_are_found(host: Survey) -> None:
    status = "".join(
        f"Package: {name}\nStatus: install ok {state}\nPriority: optional\n\n"
        for name, state in (("a", "installed"), ("b", "unpacked"), ("c", "half-configured"), ("d", "config-files"))
    )
    write(host, "/var/lib/dpkg/status", status)
    (host.root / "var/lib/dpkg/updates").mkdir()
    assert host.unfinished_packages() == ["b", "c"]
    write(host, "/var/lib/dpkg/updates/0001", "")
    write(host, "/var/lib/dpkg/updates/tmp.i", "")
    assert host.unfinished_packages() == ["b", "c", "dpkg"]


def test_a_folder_that_is_not_there_yet_has_the_space_of_the_one_above(host: Survey) -> None:
    found = host.file_system("/opt/iris-api/releases")
    assert found["exists"] is False
    assert found["device"] == host.root.stat().st_dev
    free = os.statvfs(host.root)
    assert found["free_mb"] == pytest.approx(free.f_bavail * free.f_frsize / 1e6, rel=0.05)
    assert found["read_only"] is False
    assert host.file_system("/")["exists"] is True


def test_the_addresses_of_a_host_are_found(host: Survey) -> None:
    said = r"""
1: lo    inet 127.0.0.1/8 scope host lo\       valid_lft forever preferred_lft forever
2: eth0    inet 10.0.0.4/24 brd 10.0.0.255 scope global eth0\       valid_lft forever preferred_lft forever
2: eth0    inet6 2001:db8::1/64 scope global \       valid_lft forever preferred_lft forever
3: wg0@if4    inet 10.9.0.1 peer 10.9.0.2/32 scope global wg0\       valid_lft forever preferred_lft forever
"""
    assert host.addresses(said) == ["127.0.0.1", "10.0.0.4", "2001:db8::1", "10.9.0.1"]
    assert host.addresses("") == []


def test_files_are_found_by_patterns(host: Survey) -> None:
    for name in ("b-1.gpg", "a-1.gpg", "a-2.gpg", "a-3.txt"):
        write(host, f"/etc/keys/{name}", "")
    (host.root / "etc/keys/a-4.gpg").mkdir()
    found = host.matching(["/etc/keys/a-*.gpg", "/etc/keys/b-1.gpg", "/etc/keys/none", "/no/*"])
    assert found == ["/etc/keys/a-1.gpg", "/etc/keys/a-2.gpg", "/etc/keys/b-1.gpg"]


def test_a_package_counts_as_installed_only_where_it_is_whole(host: Survey) -> None:
    states = ["nginx 1.26.3-3+deb13u1 installed", "grafana 12.0.0 config-files", "gone  unknown", "curl 8 unpacked"]
    assert host.installed("\n".join(states)) == {"nginx": "1.26.3-3+deb13u1"}


@pytest.mark.parametrize(
    ("state", "enabled", "runs"),
    [
        ("active", "enabled", True),
        ("active", "disabled", False),
        ("inactive", "enabled", False),
        ("failed", "enabled", False),
        ("reloading", "enabled", False),
    ],
)
def test_a_unit_runs_where_it_is_active_and_comes_up_at_boot(
    host: Survey, state: str, enabled: str, runs: bool
) -> None:
    paragraphs = [
        f"Id=nginx.service\nActiveState={state}\nUnitFileState={enabled}",
        "Id=no-such.service\nActiveState=inactive\nUnitFileState=",
        "Id=prometheus.service\nActiveState=active\nUnitFileState=enabled\n",
    ]
    assert host.running("\n\n".join(paragraphs)) == ["nginx.service"] * runs + ["prometheus.service"]
    assert host.running("") == []


def test_all_of_it_is_found_on_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\0\xff")
    file.chmod(0o4750)
    found = Survey().of(
        ["base-files", "no-such-package"],
        ["/opt", "/var"],
        ["no-such.service"],
        [str(file), "/no/file"],
        ["root", "nobody-of-that-name"],
        ["test -d /", "test -d /no/folder", "no-such-program --version"],
        "",
    )
    assert found.keys() == {
        "succeeding",
        "addresses",
        "listeners",
        "nginx_sites",
        "changed_files",
        "firewalls",
        "unfinished_packages",
        "file_systems",
        "installed",
        "running",
        "files",
        "missing",
        "users",
        "written",
        "unapplied",
    }
    assert found["file_systems"].keys() == {"/opt", "/var"}
    assert re.match(r"\d", found["installed"]["base-files"])
    assert "no-such-package" not in found["installed"]
    assert found["running"] == []
    assert found["files"] == {str(file): {"sha256": hashlib.sha256(b"\0\xff").hexdigest(), "mode": "4750"}}
    assert found["missing"] == ["/no/file"]
    assert found["succeeding"] == ["test -d /"]
    assert found["users"].keys() == {"root"}
    assert found["users"]["root"]["home"] == "/root"


def test_what_config_tree_has_written_is_found_and_a_secret_by_a_key_alone(host: Survey) -> None:
    write(host, "/etc/demo/open", "open\n").chmod(0o644)
    write(host, "/etc/demo/secret", "secret\n").chmod(0o640)
    (host.root / "etc/demo/link").symlink_to("open")
    write(
        host,
        "/var/lib/fortress/before/written",
        "".join(
            f"{path}\n" for path in ("/etc/demo/", "/etc/demo/open", "/etc/demo/secret", "/etc/demo/link", "/gone")
        ),
    )
    write(host, "/var/lib/fortress/unapplied/demo", "/etc/demo/open\n")
    owner = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
    digest = hashlib.sha256(b"open\n").hexdigest()
    everybodys = {"/etc/demo/open": {"sha256": digest, "mode": "0644", **owner}}
    assert host.written(b"") == everybodys
    sealed = hmac.digest(b"key", b"secret\n", "sha256").hex()
    assert host.written(b"key") == everybodys | {"/etc/demo/secret": {"hmac": sealed, "mode": "0640", **owner}}
    assert host.unapplied() == {"demo": ["/etc/demo/open"]}


def test_a_host_that_keeps_no_list_has_none(host: Survey) -> None:
    assert (host.written(b"key"), host.unapplied()) == ({}, {})
