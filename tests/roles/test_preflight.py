"""Settings that a role refuses before it changes anything: a daemon would not start by them, or would ignore them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

GATEWAY: dict[str, Any] = {
    "nginx_basic_auth_users": [{"name": "iris", "password": "kT9xWq2LmZ7vRb4NsY8cDp"}],
    "nginx_basic_auth_salt": "a-secret-of-this-site",
}


@pytest.mark.parametrize(
    "setting", [{"nginx_log_file_size_mb": 0}, {"nginx_log_file_size_mb": 9}, {"nginx_log_files": 0}]
)
def test_files_in_which_nginx_could_write_nothing_are_refused(
    preflight: Callable[..., str], setting: dict[str, int]
) -> None:
    """With a limit of 0 it can't write its own pid and does not start again."""
    said = preflight("nginx", **GATEWAY, **setting)
    assert "nginx_log_file_size_mb" in said
    assert "at least 10" in said


HOST: dict[str, Any] = {
    "ansible_facts": {"distribution": "Debian", "distribution_version": "13", "service_mgr": "systemd"},
}


@pytest.mark.parametrize("size", ["512MB", "0.5 G", "512 M", "lots", "", "0", "101%", "-1"])
def test_memory_that_systemd_would_ignore_is_refused(preflight: Callable[..., str], size: str) -> None:
    said = preflight("iris_api", iris_api_memory_max=size)
    assert "which systemd would ignore" in said
    assert "Write for example 512M" in said


def test_an_address_that_the_host_does_not_have_is_named(preflight: Callable[..., str]) -> None:
    """Instances could not listen there: behind a translation of addresses others know it by another one."""
    survey = {"listeners": [], "changed_files": [], "addresses": ["127.0.0.1", "10.0.0.4"], "file_systems": {}}
    facts = {"survey": survey | {"file_systems": {"/opt/iris-api": {"exists": True}}}}
    said = preflight("iris_api", iris_api_bind_address="192.0.2.77", ansible_facts=facts)
    assert "localhost: 192.0.2.77 is no address of this host. Set fortress_address" in said
    assert "is no address" not in preflight("iris_api", iris_api_bind_address="10.0.0.4", ansible_facts=facts)


@pytest.mark.parametrize("size", ["512M", "1.5G", "2G", "536870912", "25%", "infinity"])
def test_memory_that_systemd_reads_is_not(preflight: Callable[..., str], size: str) -> None:
    """What is asked next, for a model that is not there, stops it."""
    said = preflight("iris_api", iris_api_memory_max=size, iris_api_models_dir="/nowhere")
    assert "holds no manifest.json" in said


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"base_journal_max_size": "500MB"}, "which journald would ignore"),
        ({"base_unlimited_networks": "10.0.0.0/8"}, "base_unlimited_networks has 10.0.0.0/8; give a list"),
        (
            {"base_trusted_networks": ["office.example.com"]},
            "base_trusted_networks has office.example.com; give a list",
        ),
        (
            {"base_port_clients": [{"ports": [8001], "networks": ["gateway"]}]},
            "base_port_clients has gateway; give a list",
        ),
        ({"base_unlimited_networks": ["10.0.0.0/8", "balancer.example.com"]}, "has balancer.example.com; give a list"),
    ],
)
def test_what_the_host_could_not_read_is_refused(
    preflight: Callable[..., str], setting: dict[str, Any], complaint: str
) -> None:
    assert complaint in preflight("base", **HOST, **setting)


def test_networks_of_both_families_are_accepted(preflight: Callable[..., str]) -> None:
    networks = ["192.0.2.7", "10.20.0.0/16", "2001:db8::/32", "::1", "::ffff:192.0.2.7"]
    assert preflight("base", **HOST, base_unlimited_networks=networks) == ""
