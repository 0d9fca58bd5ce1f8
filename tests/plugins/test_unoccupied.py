"""What of a host's survey keeps a role from being installed: one sentence for each thing, with what to do."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from plugins.action.unoccupied import conflicts, is_foreign, port_conflicts, space_conflicts

NOTHING: dict[str, Any] = {"listeners": [], "nginx_sites": [], "changed_files": [], "file_systems": {}}


def listener(port: int, program: str = "", unit: str = "") -> dict[str, Any]:
    return {"address": "0.0.0.0", "port": port, "program": program, "unit": unit}


def test_a_port_is_taken_by_whoever_is_not_its_unit() -> None:
    survey = {
        "listeners": [
            listener(9090, "python3", "demo.service"),
            listener(9090, "python3", "demo.service"),
            listener(443, "nginx", "nginx.service"),
            listener(80, "apache2", "apache2.service"),
            listener(8001, "gunicorn", "iris-api@1.service"),
            listener(8002, "nc"),
            listener(8003),
            listener(22, "sshd", "ssh.service"),
        ]
    }
    assert port_conflicts(survey, [80, "443"], "nginx.service") == ["80 (apache2, apache2.service)"]
    assert port_conflicts(survey, [9090], "prometheus.service") == ["9090 (python3, demo.service)"]
    assert port_conflicts(survey, range(8001, 8004), "iris-api@") == ["8002 (nc)", "8003 (unknown)"]
    assert port_conflicts(survey, [3000], "grafana-server.service") == []


def system(device: int, free_mb: int, read_only: bool = False) -> dict[str, Any]:
    return {"exists": True, "device": device, "free_mb": free_mb, "read_only": read_only}


def test_folders_on_one_file_system_share_its_space() -> None:
    needs = {"/opt": 1000, "/usr": 600, "/var": 600}
    apart = {"/opt": system(1, 1000), "/usr": system(2, 600), "/var": system(3, 599)}
    assert space_conflicts({"file_systems": apart}, needs) == ["/var has 599 MB free, and 600 are needed"]
    shared = {path: system(1, 2199) for path in needs}
    found = space_conflicts({"file_systems": shared}, needs)
    assert found == ["/opt with /usr with /var has 2199 MB free, and 2200 are needed"]
    assert space_conflicts({"file_systems": {path: system(1, 2200) for path in needs}}, needs) == []


def test_a_read_only_file_system_has_no_space() -> None:
    found = space_conflicts({"file_systems": {"/usr": system(1, 9000, True)}}, {"/usr": 600})
    assert found == ["/usr can't be written to: the file system is read-only"]


@pytest.mark.parametrize(
    ("address", "foreign"),
    [
        ("192.0.2.77", True),
        ("10.0.0.4", False),
        ("2001:db8::0:1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("api.example.com", False),
    ],
)
def test_an_address_in_numbers_must_be_the_hosts(address: str, foreign: bool) -> None:
    survey = {"addresses": ["127.0.0.1", "10.0.0.4", "2001:db8::1"]}
    assert is_foreign(survey, address) is foreign
    assert not is_foreign({"addresses": []}, address)


def test_configuration_of_somebody_else_is_in_the_way_where_it_would_be_replaced() -> None:
    survey = NOTHING | {
        "changed_files": ["/etc/nginx/mime.types", "/etc/nginx/nginx.conf", "/etc/prometheus/prometheus.yml"],
        "nginx_sites": ["/etc/nginx/sites-enabled/shop"],
    }
    files = ["/etc/nginx/nginx.conf"]
    [found] = conflicts(survey, unit="nginx.service", files=files, package="nginx-common", nginx_sites=True)
    assert found.startswith("/etc/nginx/sites-enabled/shop, /etc/nginx/nginx.conf was written by somebody else")
    assert "`apt-get purge nginx-common`" in found
    assert list(conflicts(survey, files=["/etc/grafana/grafana.ini"], package="grafana")) == []


@pytest.mark.parametrize("facts", [{}, {"survey": NOTHING}])
def test_a_host_that_has_nothing_or_was_not_looked_at_passes(
    play: Callable[..., subprocess.CompletedProcess[str]], facts: dict[str, Any]
) -> None:
    tasks = [{"unoccupied": {"unit": "prometheus.service", "ports": [9090]}}]
    done = play(tasks, ansible_facts=facts)
    assert done.returncode == 0, done.stdout


def test_the_run_ends_with_all_that_is_in_the_way(play: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    survey = NOTHING | {"listeners": [listener(9090, "nc")], "file_systems": {"/opt": system(1, 10)}}
    task = {"unit": "demo.service", "ports": [9090], "port_variable": "demo_port", "needs_mb": {"/opt": 20}}
    done = play([{"unoccupied": task}], ansible_facts={"survey": survey})
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "localhost: Port 9090 (nc) is taken. Stop and disable that service, or set demo_port to another." in said
    assert "/opt has 10 MB free, and 20 are needed. Make room, or give another host." in said
