"""The sandbox of every unit, line by line: hardly any single line changes the exposure score of systemd-analyze."""

from __future__ import annotations

from typing import Any

import pytest

from tests import ROOT
from tests.controller import render

Settings = dict[str, Any]

# What every service is denied.
STRICT: Settings = {
    "AmbientCapabilities": [],
    "CapabilityBoundingSet": [],
    "DevicePolicy": "closed",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "NoNewPrivileges": "yes",
    "PrivateDevices": "yes",
    "PrivateIPC": "yes",
    "PrivateTmp": "yes",
    "PrivateUsers": "yes",
    "ProcSubset": "pid",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
    "RemoveIPC": "yes",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": ["native"],
    "UMask": "0077",
}
# And what differs from service to service: which calls, which networks, which folders.
CALLS = ["@system-service", "~@privileged @resources"]
NETWORK: Settings = {"IPAddressDeny": ["any"], "IPAddressAllow": ["localhost"]}
ORDINARY: Settings = {"SystemCallFilter": CALLS, "SystemCallErrorNumber": "EPERM"} | NETWORK
INTERNET = "AF_INET AF_INET6"

# Of each unit: its template, what it has beside STRICT, and the deviations from STRICT, each with its reason.
UNITS: dict[str, tuple[str, str, Settings, dict[str, tuple[Any, str]]]] = {
    "iris-api@": (
        "iris_api",
        "opt/iris-api/deployment/iris-api@.service",
        {
            "SystemCallFilter": CALLS,
            "SystemCallErrorNumber": "EPERM",
            "RestrictAddressFamilies": ["AF_UNIX AF_INET AF_INET6"],
            "IPAddressDeny": ["any"],
            "IPAddressAllow": ["localhost"],
            "KeyringMode": "private",
            "InaccessiblePaths": ["-/etc/ssl/fortress -/etc/nginx -/var/log"],
        },
        {"ProcSubset": (None, "it would hide /proc/stat, and with it every process_* metric")},
    ),
    "nginx": (
        "nginx",
        "etc/systemd/system/nginx.service.d/fortress.conf",
        {
            "SystemCallFilter": ["@system-service", "~@resources @keyring @memlock", "prlimit64"],
            "SystemCallErrorNumber": "EPERM",
            "RestrictAddressFamilies": [f"{INTERNET} AF_UNIX"],
            "ReadWritePaths": ["/run /var/lib/nginx /var/log/nginx"],
        },
        {
            "CapabilityBoundingSet": (
                ["CAP_NET_BIND_SERVICE CAP_SETUID CAP_SETGID CAP_CHOWN CAP_DAC_OVERRIDE"],
                "its master is root: it binds ports below 1024, reads the key and starts workers as www-data",
            ),
            "PrivateUsers": ("no", "www-data has to exist in it"),
        },
    ),
    "nginx-logrotate": (
        "nginx",
        "etc/systemd/system/nginx-logrotate.service",
        {
            "SystemCallFilter": ["@system-service"],
            "RestrictAddressFamilies": ["AF_UNIX"],
            "PrivateNetwork": "yes",
            "ReadWritePaths": ["/var/log/nginx /var/lib/logrotate"],
        },
        {
            "CapabilityBoundingSet": (
                ["CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_KILL"],
                "the logs are www-data's, and nginx, which it signals, is root's",
            ),
            "PrivateUsers": ("no", "www-data has to exist in it"),
        },
    ),
    "nginx-htpasswd": (
        "nginx",
        "etc/systemd/system/nginx-htpasswd.service",
        {
            "SystemCallFilter": ["@system-service"],
            "RestrictAddressFamilies": ["AF_UNIX"],
            "PrivateNetwork": "yes",
            "ReadWritePaths": ["/etc/nginx"],
        },
        {
            "CapabilityBoundingSet": (["CAP_CHOWN"], "what it writes belongs to the group of nginx' workers"),
            "PrivateUsers": ("no", "www-data has to exist in it"),
        },
    ),
    "nginx-watch": (
        "nginx",
        "etc/systemd/system/nginx-watch.service",
        {"SystemCallFilter": ["@system-service"], "RestrictAddressFamilies": ["AF_UNIX"], "PrivateNetwork": "yes"},
        {
            "CapabilityBoundingSet": (["CAP_KILL"], "the workers that it kills are www-data's"),
            "PrivateUsers": ("no", "it signals processes outside of it"),
            "ProtectProc": ("default", "it reads the state of nginx' processes"),
        },
    ),
    "prometheus-nginx-exporter": (
        "nginx_exporter",
        "etc/systemd/system/prometheus-nginx-exporter.service.d/fortress.conf",
        ORDINARY | {"RestrictAddressFamilies": [INTERNET], "DynamicUser": "yes"},
        {},
    ),
    "prometheus-node-exporter": (
        "node_exporter",
        "etc/systemd/system/prometheus-node-exporter.service.d/fortress.conf",
        ORDINARY | {"RestrictAddressFamilies": [f"{INTERNET} AF_NETLINK AF_UNIX"]},
        {
            "ProtectProc": ("default", "it reports on all of /proc"),
            "ProcSubset": ("all", "it reports on all of /proc"),
            "ProtectHome": ("read-only", "it reports on every mounted file system"),
        },
    ),
    "fortress-host-metrics": (
        "node_exporter",
        "etc/systemd/system/fortress-host-metrics.service",
        {
            "SystemCallFilter": ["@system-service"],
            "RestrictAddressFamilies": ["AF_UNIX"],
            "PrivateNetwork": "yes",
            "ReadWritePaths": ["/var/lib/prometheus/node-exporter"],
        },
        {
            "CapabilityBoundingSet": (
                ["CAP_SYS_PTRACE CAP_DAC_READ_SEARCH"],
                "it counts the descriptors of other users' processes, and reads what is deployed",
            ),
            "PrivateUsers": ("no", "those processes are of users outside of it"),
            "ProtectProc": ("default", "it reads of all units' processes"),
        },
    ),
    "mtail": (
        "mtail",
        "etc/systemd/system/mtail.service.d/fortress.conf",
        ORDINARY | {"RestrictAddressFamilies": [INTERNET]},
        {"PrivateUsers": ("no", "the group that may read the log has to exist in it")},
    ),
    "prometheus-blackbox-exporter": (
        "blackbox_exporter",
        "etc/systemd/system/prometheus-blackbox-exporter.service.d/fortress.conf",
        ORDINARY | {"RestrictAddressFamilies": [INTERNET], "DynamicUser": "yes"},
        {"CapabilityBoundingSet": (["CAP_NET_RAW"], "its program would not start: the package gives it to the file")},
    ),
    "prometheus": (
        "prometheus",
        "etc/systemd/system/prometheus.service.d/fortress.conf",
        ORDINARY | {"RestrictAddressFamilies": [f"{INTERNET} AF_UNIX"], "ReadWritePaths": ["/var/lib/prometheus"]},
        {"DevicePolicy": ("strict", "as Debian's unit has it, which is stricter")},
    ),
    "prometheus-alertmanager": (
        "alertmanager",
        "etc/systemd/system/prometheus-alertmanager.service.d/fortress.conf",
        # No addresses: receivers may be anywhere, and whom it answers is up to the firewall.
        {
            "SystemCallFilter": CALLS,
            "SystemCallErrorNumber": "EPERM",
            "RestrictAddressFamilies": [f"{INTERNET} AF_UNIX"],
            "ReadWritePaths": ["/var/lib/prometheus/alertmanager"],
        },
        {},
    ),
    "grafana-server": (
        "grafana",
        "etc/systemd/system/grafana-server.service.d/fortress.conf",
        ORDINARY
        | {"RestrictAddressFamilies": [f"{INTERNET} AF_UNIX"], "ReadWritePaths": ["/var/lib/grafana /var/log/grafana"]},
        {
            "MemoryDenyWriteExecute": ("no", "the vendor's unit leaves it off, for plugins"),
            "UMask": ("0027", "its group may read its files, as the vendor's package has it"),
        },
    ),
}
WITHOUT = {
    # It runs nft once, before local file systems and the network are up, and ends.
    "base/templates/etc/systemd/system/fortress-firewall.service",
    # It restarts instances, as root.
    "iris_api/templates/etc/systemd/system/iris-deploy-recover.service",
    # It has how nginx is started and stopped; its sandbox is in fortress.conf beside it.
    "nginx/templates/etc/systemd/system/nginx.service.d/fortress-sockets.conf",
    # What is written as root while the system goes down; its sandbox is in fortress.conf beside it.
    "node_exporter/templates/etc/systemd/system/prometheus-node-exporter.service.d/reboot.conf",
}

# systemd adds each value to the ones before, until an empty one removes all. Of other settings the last value counts.
LISTS = {
    "AmbientCapabilities",
    "CapabilityBoundingSet",
    "InaccessiblePaths",
    "IPAddressAllow",
    "IPAddressDeny",
    "ReadWritePaths",
    "RestrictAddressFamilies",
    "SystemCallArchitectures",
    "SystemCallFilter",
}
SANDBOX = ("Private", "Protect", "Restrict", "SystemCall", "IPAddress", *LISTS, *STRICT, "KeyringMode", "DynamicUser")


def sandbox(text: str) -> Settings:
    """Read a unit as systemd does, the settings of its sandbox alone."""
    settings: Settings = {}
    for line in text.partition("[Service]")[2].partition("\n[")[0].splitlines():
        name, separator, value = line.partition("=")
        if not separator or line.startswith("#") or not name.startswith(SANDBOX):
            continue
        if name not in LISTS:
            settings[name] = value
        else:
            settings[name] = [*settings.get(name, []), value] if value else []
    return settings


@pytest.mark.parametrize("unit", UNITS)
def test_the_sandbox_is_complete_but_for_what_has_a_reason(unit: str) -> None:
    role, template, beside, deviations = UNITS[unit]
    expected = STRICT | beside | {name: value for name, (value, _) in deviations.items()}
    assert all(reason for _, reason in deviations.values())
    assert sandbox(render(role, template)) == {name: value for name, value in expected.items() if value is not None}


def test_no_unit_is_left_out() -> None:
    paths = {
        str(path.relative_to(ROOT / "roles")) for path in (ROOT / "roles").glob("*/templates/**/*.service*/*.conf")
    }
    paths |= {str(path.relative_to(ROOT / "roles")) for path in (ROOT / "roles").glob("*/templates/**/*.service")}
    assert paths == {f"{role}/templates/{template}" for role, template, _, _ in UNITS.values()} | WITHOUT
