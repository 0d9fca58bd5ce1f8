"""What the roles of the monitoring write, rendered by Ansible's own engine without a host, and what they refuse."""

from __future__ import annotations

import configparser
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT
from tests.controller import render
from tools.dashboards.__main__ import DASHBOARDS

UNITS = {
    "nginx_exporter": "prometheus-nginx-exporter",
    "node_exporter": "prometheus-node-exporter",
    "prometheus": "prometheus",
    "alertmanager": "prometheus-alertmanager",
    "grafana": "grafana-server",
}
PROBE = {"blackbox_exporter_password": "9f86d081884c7d659a2feaa0c55ad015"}
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


def test_prometheus_hands_its_alerts_to_whom_it_is_told() -> None:
    assert "alerting" not in prometheus()
    [told] = prometheus(prometheus_alertmanagers=["127.0.0.1:9093"])["alerting"]["alertmanagers"]
    assert told == {"static_configs": [{"targets": ["127.0.0.1:9093"]}]}


def test_an_alert_says_of_which_site_it_is() -> None:
    told = prometheus(prometheus_external_labels={"site": "a.test"})["global"]["external_labels"]
    assert told == {"site": "a.test"}


def test_alertmanager_opens_no_port_of_a_cluster_and_reaches_its_receivers() -> None:
    arguments = render("alertmanager", "etc/default/prometheus-alertmanager").splitlines()[-1]
    assert arguments == 'ARGS="--web.listen-address=:9093 --cluster.listen-address="'
    # It would work in both directions, and receivers may be anywhere.
    assert "IPAddressDeny" not in sandbox("alertmanager")


def test_alertmanagers_configuration_is_what_the_filter_makes() -> None:
    settings = {"alertmanager_receivers": [{"name": "team", "webhook_url": "https://x.test/a"}]}
    made = yaml.safe_load(render("alertmanager", "etc/prometheus/alertmanager.yml", **settings))
    assert [each["name"] for each in made["receivers"]] == ["everybody", "nobody"]
    assert made["receivers"][0]["webhook_configs"] == [{"url": "https://x.test/a", "send_resolved": True}]
    assert made["route"]["group_wait"] == "10s"
    for file in made["templates"]:
        assert (ROOT / "roles/alertmanager/files/etc/prometheus" / file).is_file()


def test_a_receiver_that_cannot_be_notified_is_refused(preflights: Callable[..., list[str]]) -> None:
    fine, refused = preflights("alertmanager", {}, {"alertmanager_receivers": [{"name": "team"}]})
    assert fine == ""
    assert "The receiver team can't be notified" in refused


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


@pytest.mark.parametrize("role", sorted(set(UNITS) - {"alertmanager"}))
def test_a_service_talks_to_trusted_networks_and_loopback_alone(role: str) -> None:
    assert sandbox(role)["IPAddressAllow"] == ["localhost"]
    directives = sandbox(role, **{f"{role}_trusted_networks": ["172.16.0.0/12", "fd00::/8"]})
    assert directives["IPAddressDeny"] == ["any"]
    assert directives["IPAddressAllow"] == ["localhost 172.16.0.0/12 fd00::/8"]


def test_an_exporter_is_not_the_user_who_owns_prometheus_data() -> None:
    directives = sandbox("nginx_exporter")
    assert directives["User"] == [""]
    assert directives["DynamicUser"] == ["yes"]
    assert sandbox("node_exporter")["User"] == ["fortress-node-exporter"]


def blackbox(**settings: Any) -> Any:
    return yaml.safe_load(render("blackbox_exporter", "etc/prometheus/blackbox.yml", **settings))["modules"]["gateway"]


def test_a_job_may_have_settings_of_its_own() -> None:
    """The probe asks less often than the rest, and says which gateway by a label of the target."""
    settings = {"metrics_path": "/probe", "params": {"module": ["gateway"]}, "scrape_interval": "15s"}
    target = {"address": "127.0.0.1:9115", "labels": {"instance": "g1", "__param_target": "https://192.0.2.1/probe"}}
    configuration = prometheus(prometheus_scrape_jobs=[{"name": "probe", "settings": settings, "targets": [target]}])
    assert configuration["scrape_configs"][1] == settings | {
        "job_name": "probe",
        "static_configs": [{"targets": ["127.0.0.1:9115"], "labels": target["labels"]}],
    }


def test_promtool_takes_the_job_of_the_probe(promtool: str, tmp_path: Path) -> None:
    settings = {"metrics_path": "/probe", "params": {"module": ["gateway"]}, "scrape_interval": "15s"}
    target = {"address": "127.0.0.1:9115", "labels": {"instance": "g1", "__param_target": "https://192.0.2.1/probe"}}
    jobs = [{"name": "probe", "settings": settings, "targets": [target]}]
    text = render("prometheus", "etc/prometheus/prometheus.yml", prometheus_scrape_jobs=jobs)
    (tmp_path / "prometheus.yml").write_text(text.replace("rules/*.yml", "none/*.yml"))
    command = [promtool, "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


GRAFANAS_TARGET = "etc/prometheus/targets/grafana.json"


@pytest.mark.parametrize(
    ("settings", "address", "path"),
    [
        ({}, "127.0.0.1:3000", "/grafana/metrics"),
        ({"grafana_listen_address": "0.0.0.0", "grafana_port": 3001}, "127.0.0.1:3001", "/grafana/metrics"),
        ({"grafana_listen_address": "fd00::5"}, "[fd00::5]:3000", "/grafana/metrics"),
        ({"grafana_root_url": "https://grafana.example.com/"}, "127.0.0.1:3000", "/metrics"),
    ],
)
def test_grafana_says_where_it_is_scraped(settings: dict[str, Any], address: str, path: str) -> None:
    [told] = json.loads(render("grafana", GRAFANAS_TARGET, **SECRETS, **settings))
    assert told == {"targets": [address], "labels": {"instance": "grafana", "__metrics_path__": path}}


def test_prometheus_finds_grafana_where_the_role_says_it_is_and_nowhere_else(promtool: str, tmp_path: Path) -> None:
    wiring = yaml.safe_load((ROOT / "group_vars/all/wiring.yml").read_text())
    [job] = [job for job in wiring["prometheus_scrape_jobs"] if job["name"] == "grafana"]
    text = render("prometheus", "etc/prometheus/prometheus.yml", prometheus_scrape_jobs=[job])
    assert text.count(f"/{GRAFANAS_TARGET}") == 1
    assert yaml.safe_load(text)["scrape_configs"][1].get("static_configs") is None
    (tmp_path / "grafana.json").write_text(render("grafana", GRAFANAS_TARGET, **SECRETS))
    for path in ("grafana.json", "not-installed.json"):
        configuration = text.replace(f"/{GRAFANAS_TARGET}", str(tmp_path / path))
        (tmp_path / "prometheus.yml").write_text(configuration.replace("rules/*.yml", "none/*.yml"))
        command = [promtool, "check", "config", str(tmp_path / "prometheus.yml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_gateway_is_asked_as_a_client_asks_it() -> None:
    module = blackbox(blackbox_exporter_server_name="api.example.com")
    assert module["http"]["headers"] == {"Host": "api.example.com"}
    assert module["http"]["fail_if_not_ssl"] is True
    # By the name, whatever the address is; and by the authorities of the host unless others are given.
    assert module["http"]["tls_config"] == {"server_name": "api.example.com"}
    assert "insecure_skip_verify" not in str(module)
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
    trusting = blackbox(blackbox_exporter_ca_certificates=certificate)["http"]["tls_config"]
    written = render(
        "blackbox_exporter", trusting["ca_file"].lstrip("/"), blackbox_exporter_ca_certificates=certificate
    )
    assert certificate in written


def test_the_password_of_the_probe_is_in_no_file_that_others_read() -> None:
    """The service manager reads it as root, and shows it to the service alone."""
    for path in ("etc/prometheus/blackbox.yml", "etc/default/prometheus-blackbox-exporter"):
        assert PROBE["blackbox_exporter_password"] not in render("blackbox_exporter", path, **PROBE)
    unit = render(
        "blackbox_exporter", "etc/systemd/system/prometheus-blackbox-exporter.service.d/fortress.conf", **PROBE
    )
    assert "\nLoadCredential=password:/etc/fortress/probe-password\n" in unit
    shown = "/run/credentials/prometheus-blackbox-exporter.service/password"
    assert blackbox()["http"]["basic_auth"] == {"username": "fortress-probe", "password_file": shown}


def test_what_asks_wherever_it_is_told_to_listens_on_loopback() -> None:
    arguments = render("blackbox_exporter", "etc/default/prometheus-blackbox-exporter").splitlines()[-1]
    assert "--web.listen-address=127.0.0.1:9115" in arguments
    unit = "etc/systemd/system/prometheus-blackbox-exporter.service.d/fortress.conf"
    written = render("blackbox_exporter", unit, blackbox_exporter_gateways=["192.0.2.1", "192.0.2.2"])
    assert "\nIPAddressDeny=any\nIPAddressAllow=localhost 192.0.2.1 192.0.2.2\n" in written
    assert "StartLimitIntervalSec=0" in written.partition("[Service]")[0]
    assert "\nRestart=always\nRestartSec=2\n" in written


def test_a_probe_without_a_password_is_refused(preflights: Callable[..., list[str]]) -> None:
    no_certificates = PROBE | {"blackbox_exporter_ca_certificates": "none"}
    fine, untrusting, anonymous = preflights("blackbox_exporter", PROBE, no_certificates, {})
    assert fine == ""
    assert "blackbox_exporter_ca_certificates has no certificate in PEM" in untrusting
    assert "blackbox_exporter_password has 0 characters" in anonymous


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
    assert {path.name for path in folder.iterdir()} == set(DASHBOARDS)
    home = grafana_ini()["dashboards"]["default_home_dashboard_path"]
    assert Path(home).name in {path.name for path in folder.iterdir()}


def test_two_instances_of_one_name_are_refused_and_the_defaults_are_not(preflights: Callable[..., list[str]]) -> None:
    targets = [{"address": f"{host}:8001", "labels": {"instance": "iris-api@1"}} for host in ("10.0.0.1", "10.0.0.2")]
    fine, refused = preflights("prometheus", {}, {"prometheus_scrape_jobs": [{"name": "iris-api", "targets": targets}]})
    assert fine == ""
    assert "prometheus_scrape_jobs the job iris-api has two targets with the same labels" in refused


def test_grafana_refuses_weak_secrets_key_ids_and_a_package_that_is_not_there(
    preflights: Callable[..., list[str]],
) -> None:
    # A well-known password, a short key, and Grafana's public default.
    weak = [
        {"grafana_admin_password": "admin"},
        {"grafana_secret_key": "short"},
        {"grafana_secret_key": "SW2YcwTIb9zpOOhoPsMm"},
    ]
    fine, key_id, no_package, *refused = preflights(
        "grafana",
        SECRETS,
        SECRETS | {"grafana_apt_key_fingerprints": ["963FA27710458545"]},
        SECRETS | {"grafana_deb_file": "/nowhere/grafana.deb"},
        *(SECRETS | each for each in weak),
    )
    assert fine == ""
    assert "a fingerprint is 40 digits" in key_id
    assert "grafana_deb_file names /nowhere/grafana.deb" in no_package
    assert len(refused) == len(weak)
    for said in refused:
        assert "`openssl rand -hex 16` makes a good one" in said
        assert not [secret for secret in SECRETS.values() if secret in said]
