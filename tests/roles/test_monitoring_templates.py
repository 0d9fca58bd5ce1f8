"""What the roles of the monitoring write, rendered by Ansible's own engine without a host, and what they refuse."""

from __future__ import annotations

import configparser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT
from tests.controller import render

UNITS = {
    "nginx_exporter": "prometheus-nginx-exporter",
    "node_exporter": "prometheus-node-exporter",
    "prometheus": "prometheus",
    "grafana": "grafana-server",
}
SECRETS = {"grafana_admin_password": "correct horse battery", "grafana_secret_key": "0123456789abcdef"}


def prometheus(**settings: Any) -> Any:
    return yaml.safe_load(render("prometheus", "etc/prometheus/prometheus.yml", **settings))


def sandbox(role: str, **settings: Any) -> dict[str, list[str]]:
    """Read the drop-in of a role's unit: each directive's values in order."""
    text = render(role, f"etc/systemd/system/{UNITS[role]}.service.d/fortress.conf", **settings)
    directives: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            directives.setdefault(name, []).append(value)
    return directives


def grafana_ini(**settings: Any) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(render("grafana", "etc/grafana/grafana.ini", **SECRETS, **settings))
    return parser


def test_prometheus_asks_everybody_every_three_seconds() -> None:
    configuration = prometheus()
    assert configuration["global"] == {"scrape_interval": "3s", "evaluation_interval": "15s"}
    targets = {
        job["job_name"]: [target for group in job["static_configs"] for target in group["targets"]]
        for job in configuration["scrape_configs"]
    }
    assert targets == {
        "prometheus": ["127.0.0.1:9090"],
        "nginx": ["127.0.0.1:9113"],
        "iris-api": ["127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003"],
        "node": ["127.0.0.1:9100"],
    }


def test_an_instance_is_called_what_its_unit_is_called() -> None:
    jobs = {job["job_name"]: job["static_configs"] for job in prometheus()["scrape_configs"]}
    assert [group["labels"]["instance"] for group in jobs["iris-api"]] == ["iris-api@1", "iris-api@2", "iris-api@3"]


def test_rules_are_named_relative_so_that_a_staged_tree_is_checked_whole() -> None:
    assert prometheus()["rule_files"] == ["rules/*.yml"]


def test_a_further_job_and_odd_labels_are_taken_as_they_are() -> None:
    job = {"name": "my: job", "targets": [{"address": "[fd00::1]:9187", "labels": {"team": "yes", "note": 'a "b" #c'}}]}
    configuration = prometheus(prometheus_scrape_jobs=[job])
    assert configuration["scrape_configs"][1] == {
        "job_name": "my: job",
        "static_configs": [{"targets": ["[fd00::1]:9187"], "labels": {"team": "yes", "note": 'a "b" #c'}}],
    }


@pytest.mark.parametrize(
    ("listen", "own"), [(":9090", "127.0.0.1:9090"), ("10.0.0.5:9091", "10.0.0.5:9091"), ("[::1]:9090", "[::1]:9090")]
)
def test_prometheus_reaches_itself_where_it_listens(listen: str, own: str) -> None:
    assert prometheus(prometheus_listen_address=listen)["scrape_configs"][0]["static_configs"][0]["targets"] == [own]


def test_prometheus_keeps_a_bounded_history_and_cannot_be_stopped_over_http() -> None:
    arguments = render("prometheus", "etc/default/prometheus").splitlines()[-1]
    assert arguments == (
        'ARGS="--web.listen-address=:9090 --storage.tsdb.retention.time=15d --storage.tsdb.retention.size=5GB"'
    )


def test_the_address_people_use_is_told_to_prometheus_if_there_is_one() -> None:
    arguments = render("prometheus", "etc/default/prometheus", prometheus_external_url="http://mon:9090").splitlines()
    assert "--web.external-url=http://mon:9090 " in arguments[-1]


def test_the_nginx_exporters_flags_have_one_dash_which_both_versions_take() -> None:
    arguments = render("nginx_exporter", "etc/default/prometheus-nginx-exporter").splitlines()[-1]
    assert arguments == 'ARGS="-web.listen-address=:9113 -nginx.scrape-uri=http://127.0.0.1/nginx_status"'


@pytest.mark.parametrize("role", UNITS)
def test_a_service_comes_back_however_often_it_dies(role: str) -> None:
    text = render(role, f"etc/systemd/system/{UNITS[role]}.service.d/fortress.conf")
    unit, _, service = text.partition("[Service]")
    assert "StartLimitIntervalSec=0" in unit.partition("[Unit]")[2], "systemd reads it in [Unit] only"
    assert "\nRestart=always\nRestartSec=2\n" in service


@pytest.mark.parametrize("role", UNITS)
def test_a_service_talks_to_trusted_networks_and_loopback_alone(role: str) -> None:
    assert sandbox(role)["IPAddressAllow"] == ["localhost"]
    directives = sandbox(role, **{f"{role}_trusted_networks": ["172.16.0.0/12", "fd00::/8"]})
    assert directives["IPAddressDeny"] == ["any"]
    assert directives["IPAddressAllow"] == ["localhost 172.16.0.0/12 fd00::/8"]


@pytest.mark.parametrize("role", ["nginx_exporter", "node_exporter"])
def test_an_exporter_is_not_the_user_who_owns_prometheus_data(role: str) -> None:
    directives = sandbox(role)
    assert directives["User"] == [""]
    assert directives["DynamicUser"] == ["yes"]


def test_grafana_lives_below_the_gateways_path_and_calls_nobody() -> None:
    ini = grafana_ini(grafana_root_url="https://iris.example.com/grafana/", grafana_domain="iris.example.com")
    assert ini["server"]["root_url"] == "https://iris.example.com/grafana/"
    assert ini["server"]["serve_from_sub_path"] == "true"
    assert ini["auth.anonymous"]["enabled"] == "false"
    calls = {
        ("analytics", "reporting_enabled"): "false",
        ("analytics", "check_for_updates"): "false",
        ("analytics", "check_for_plugin_updates"): "false",
        ("news", "news_feed_enabled"): "false",
        ("security", "disable_gravatar"): "true",
        ("plugins", "preinstall_disabled"): "true",
    }
    assert {(section, option): ini[section][option] for section, option in calls} == calls


def test_grafanas_secrets_are_in_files_of_their_own() -> None:
    security = grafana_ini()["security"]
    assert security["admin_password"] == "$__file{/etc/grafana/secrets/admin_password}"
    assert security["secret_key"] == "$__file{/etc/grafana/secrets/secret_key}"
    text = render("grafana", "etc/grafana/grafana.ini", **SECRETS)
    assert not [secret for secret in SECRETS.values() if secret in text]


def test_another_list_of_fingerprints_is_another_keyring() -> None:
    first, second = "A" * 40, "0123456789" * 4
    path = "etc/apt/sources.list.d/grafana.sources"
    one = render("grafana", path, grafana_apt_key_fingerprints=[first])
    both = render("grafana", path, grafana_apt_key_fingerprints=[first, second])
    assert one.endswith(f"\nSigned-By: /etc/apt/keyrings/grafana-{'A' * 16}.gpg\n")
    assert both.endswith(f"\nSigned-By: /etc/apt/keyrings/grafana-{'A' * 16}-4567890123456789.gpg\n")


def test_the_dashboards_are_where_grafana_looks_for_them() -> None:
    provider = yaml.safe_load(render("grafana", "etc/grafana/provisioning/dashboards/fortress.yml"))["providers"][0]
    folder = ROOT / "roles/grafana/files" / provider["options"]["path"].lstrip("/")
    assert {path.name for path in folder.iterdir()} == {"nginx.json", "iris-api.json"}
    home = grafana_ini()["dashboards"]["default_home_dashboard_path"]
    assert Path(home).name in {path.name for path in folder.iterdir()}


def test_prometheus_accepts_its_own_defaults(preflight: Callable[..., str]) -> None:
    assert preflight("prometheus") == ""


def test_two_instances_of_one_name_are_refused(preflight: Callable[..., str]) -> None:
    targets = [{"address": f"{host}:8001", "labels": {"instance": "iris-api@1"}} for host in ("10.0.0.1", "10.0.0.2")]
    said = preflight("prometheus", prometheus_scrape_jobs=[{"name": "iris-api", "targets": targets}])
    assert "prometheus_scrape_jobs the job iris-api has two targets with the same labels" in said


def test_grafana_accepts_good_secrets(preflight: Callable[..., str]) -> None:
    assert preflight("grafana", **SECRETS) == ""


@pytest.mark.parametrize(
    "weak",
    [
        {"grafana_admin_password": "admin"},
        {"grafana_secret_key": "short"},
        {"grafana_secret_key": "SW2YcwTIb9zpOOhoPsMm"},
    ],
    ids=["a well-known password", "a short key", "Grafana's public default"],
)
def test_grafana_refuses_weak_secrets(preflight: Callable[..., str], weak: dict[str, str]) -> None:
    said = preflight("grafana", **(SECRETS | weak))
    assert "`openssl rand -hex 16` makes a good one" in said
    assert not [secret for secret in SECRETS.values() if secret in said]


def test_a_key_id_is_no_fingerprint(preflight: Callable[..., str]) -> None:
    said = preflight("grafana", **SECRETS, grafana_apt_key_fingerprints=["963FA27710458545"])
    assert "a fingerprint is 40 digits" in said


def test_a_package_that_is_not_there_is_named(preflight: Callable[..., str]) -> None:
    said = preflight("grafana", **SECRETS, grafana_deb_file="/nowhere/grafana.deb")
    assert "grafana_deb_file names /nowhere/grafana.deb" in said
