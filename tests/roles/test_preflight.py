"""Settings that a role refuses before it changes anything: a daemon would not start by them, or would ignore them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

GATEWAY: dict[str, Any] = {
    "nginx_basic_auth_users": [{"name": "iris", "password": "kT9xWq2LmZ7vRb4NsY8cDp"}],
    "nginx_basic_auth_salt": "a-secret-of-this-site",
}


def test_files_in_which_nginx_could_write_nothing_are_refused(preflights: Callable[..., list[str]]) -> None:
    """With a limit of 0 it can't write its own pid and does not start again."""
    settings = [{"nginx_log_file_size_mb": 0}, {"nginx_log_file_size_mb": 9}, {"nginx_log_files": 0}]
    for said in preflights("nginx", *settings, **GATEWAY):
        assert "nginx_log_file_size_mb" in said
        assert "at least 10" in said


HOST: dict[str, Any] = {
    "ansible_facts": {"distribution": "Debian", "distribution_version": "13", "service_mgr": "systemd"},
}


def test_memory_that_systemd_would_ignore_is_refused_and_no_other(preflights: Callable[..., list[str]]) -> None:
    ignored = ["512MB", "0.5 G", "512 M", "lots", "", "0", "101%", "-1"]
    read = ["512M", "1.5G", "2G", "536870912", "25%", "infinity"]
    every = preflights(
        "iris_api", *({"iris_api_memory_max": size} for size in (*ignored, *read)), iris_api_models_dir="/nowhere"
    )
    for size, said in zip((*ignored, *read), every, strict=True):
        assert ("which systemd would ignore. Write for example 512M" in said) == (size in ignored), size
        # The model that is not there stops them all.
        assert "holds no manifest.json" in said


def test_a_bound_that_no_model_could_meet_is_refused(preflights: Callable[..., list[str]]) -> None:
    sizes = [0, -1, 1]
    every = preflights("iris_api", *({"iris_api_max_model_mb": size} for size in sizes), iris_api_models_dir="/nowhere")
    for size, said in zip(sizes, every, strict=True):
        # As tools/build-release says it.
        complaint = f"iris_api_max_model_mb is {size}; give a number of 10^6 bytes above 0, say 2000."
        assert (complaint in said) == (size < 1), said
        assert "holds no manifest.json" in said


def test_an_address_that_the_host_does_not_have_is_named(preflight: Callable[..., str]) -> None:
    """Instances could not listen there: behind a translation of addresses others know it by another one."""
    survey = {"listeners": [], "changed_files": [], "addresses": ["127.0.0.1", "10.0.0.4"], "file_systems": {}}
    facts = {"survey": survey | {"file_systems": {"/opt/iris-api": {"exists": True}}}}
    said = preflight("iris_api", iris_api_bind_address="192.0.2.77", ansible_facts=facts)
    assert ": 192.0.2.77 is no address of this host. Set fortress_address" in said
    assert "is no address" not in preflight("iris_api", iris_api_bind_address="10.0.0.4", ansible_facts=facts)


def test_what_the_host_could_not_read_is_refused(preflights: Callable[..., list[str]]) -> None:
    complaints: list[tuple[dict[str, Any], str]] = [
        ({"base_journal_max_size": "500MB"}, "which journald would ignore"),
        ({"base_unlimited_networks": "10.0.0.0/8"}, "base_unlimited_networks is '10.0.0.0/8', and must be a list"),
        (
            {"base_trusted_networks": ["office.example.com"]},
            "base_trusted_networks has office.example.com; give a list",
        ),
        (
            {"base_port_clients": [{"ports": [8001], "networks": ["gateway"]}]},
            "base_port_clients has gateway; give a list",
        ),
        ({"base_unlimited_networks": ["10.0.0.0/8", "balancer.example.com"]}, "has balancer.example.com; give a list"),
    ]
    of_both_families = ["192.0.2.7", "10.20.0.0/16", "2001:db8::/32", "::1", "::ffff:192.0.2.7"]
    *refused, accepted = preflights(
        "base", *(setting for setting, _ in complaints), {"base_unlimited_networks": of_both_families}, **HOST
    )
    for (_, complaint), said in zip(complaints, refused, strict=True):
        assert complaint in said
    assert accepted == ""
